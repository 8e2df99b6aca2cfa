"""The table of Hugging Face's `GenerationConfig`: what each field is here."""

from dataclasses import dataclass

from model_service.engine.load import default_fields, loader
from model_service.front.checks.configuration_fields import SUPPORTED_FIELDS


@dataclass(frozen=True, slots=True)
class Field:
    """One field of Hugging Face's.

    Attributes:
        ours: names of our fields; empty where there is none.
        note: what else there is to say.
    """

    ours: tuple[str, ...] = ()
    note: str = ""


def _same(*names: str) -> dict[str, Field]:
    return {name: Field((name,)) for name in names}


def _not(note: str, *names: str) -> dict[str, Field]:
    return {name: Field(note=note) for name in names}


_ELSEWHERE = "asked for by each request"
_ASSISTANT = "takes a second model"
_REMOVED = "Hugging Face has moved it to code on the hub, which is never run"
_SPEED = "about speed and memory, not about results"

FIELDS: dict[str, Field] = {
    "max_length": Field(
        ("max_length",), "a model's own is overridden by a request's `max_new_tokens`"
    ),
    "max_new_tokens": Field(
        ("max_new_tokens",), "Hugging Face's own default, 20 tokens, is not used"
    ),
    "min_length": Field(("min_length",), "has no effect beside `min_new_tokens`, as in `generate`"),
    **_same("min_new_tokens", "early_stopping", "max_time", "stop_strings"),
    **_same("do_sample", "num_beams"),
    **_not("about drafts of the model's own heads", "use_mtp"),
    **_not(_SPEED, "use_cache", "cache_config", "max_cache_len"),
    "cache_implementation": Field(
        note="`quantized` changes results and is refused; the others change none"
    ),
    **_same("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"),
    **_same("epsilon_cutoff", "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty"),
    **_same("length_penalty", "no_repeat_ngram_size", "bad_words_ids", "renormalize_logits"),
    **_same("forced_bos_token_id"),
    "forced_eos_token_id": Field(("forced_eos_token_ids",)),
    **_same("remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens"),
    **_same("begin_suppress_tokens", "sequence_bias"),
    "token_healing": Field(note="takes a tokenizer, which this service has not"),
    **_same("guidance_scale"),
    "watermarking_config": Field(("green_list_watermark", "synth_id_watermark")),
    "num_return_sequences": Field(("num_return_sequences",)),
    **_not("not offered", "output_attentions", "output_hidden_states"),
    "output_scores": Field(note=f"{_ELSEWHERE}: `scores.scores`"),
    "output_logits": Field(note=f"{_ELSEWHERE}: `scores.logits`"),
    "return_dict_in_generate": Field(note="answers are messages"),
    "pad_token_id": Field(note="rows run without padding"),
    "bos_token_id": Field(note="every prompt has a token"),
    "eos_token_id": Field(("eos_token_ids",)),
    **_same("encoder_no_repeat_ngram_size"),
    "decoder_start_token_id": Field(note="encoder-decoder models only"),
    **_not(
        _ASSISTANT,
        "is_assistant",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "target_lookbehind",
        "assistant_ensemble_weight",
        "speculation_type",
    ),
    "prompt_lookup_num_tokens": Field(
        ("prompt_lookup_num_tokens",),
        "changes speed; the result only as any other batch may, in the last bits of bfloat16",
    ),
    "max_matching_ngram_size": Field(("max_matching_ngram_size",)),
    "assistant_early_exit": Field(note="about drafts, which change no result"),
    **_not(_SPEED, "compile_config", "disable_compile", "prefill_chunk_size"),
    "continuous_batching_config": Field(note="batching is this service's own"),
    "low_memory": Field(note=_REMOVED),
    **_not(_REMOVED, "penalty_alpha", "dola_layers", "diversity_penalty"),
    **_not(_REMOVED, "num_beam_groups", "constraints", "force_words_ids"),
    "transformers_version": Field(note="who wrote the file"),
}


def hugging_face_table() -> str:
    """One row per field."""
    rows = [
        "| Hugging Face | here | supported | in a model's own file | |",
        "|---|---|---|---|---|",
    ]
    for name, field in FIELDS.items():
        ours = ", ".join(f"`{our}`" for our in field.ours) or "none"
        supported = "yes" if field.ours and SUPPORTED_FIELDS.issuperset(field.ours) else "no"
        rows.append(f"| `{name}` | {ours} | {supported} | {_in_file(name)} | {field.note} |")
    return "\n".join(rows)


def _in_file(name: str) -> str:
    """Says what a value in a model's own generation_config.json does."""
    if name in {"max_length", "max_new_tokens"} or name in default_fields.FIELDS:
        return "honored"
    return "refused" if name in loader.NOT_SAMPLED else "ignored"
