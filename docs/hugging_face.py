"""The tables of generation fields: Hugging Face's, what each is here, and processors in order."""

from transformers import GenerationConfig as HFGenerationConfig

from model_service.engine.load import default_fields, loader
from model_service.protocol.number import Number
from model_service.protocol.parameters import PARAMETERS, PROCESSORS

_ELSEWHERE = "asked for by each request"
_ASSISTANT = "takes a second model"
_REMOVED = "Hugging Face has moved it to code on the hub, which is never run"
_SPEED = "about speed and memory, not about results"


def _all(note: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, note)


NOTES = {
    "max_length": "a model's own is overridden by a request's `max_new_tokens`",
    "max_new_tokens": "Hugging Face's own default, 20 tokens, is not used",
    "min_length": "has no effect when `min_new_tokens` is set, as in `generate`",
    "prompt_lookup_num_tokens": (
        "changes speed; the result only as any other batch may, in the last bits of bfloat16"
    ),
    "use_mtp": "about drafts of the model's own heads",
    "cache_implementation": "`quantized` changes results and is refused; the others change none",
    "token_healing": "takes a tokenizer, which this service has not",
    "output_scores": f"{_ELSEWHERE}: `scores.scores`",
    "output_logits": f"{_ELSEWHERE}: `scores.logits`",
    "return_dict_in_generate": "answers are messages",
    "pad_token_id": "rows run without padding",
    "bos_token_id": "every prompt has a token",
    "decoder_start_token_id": "encoder-decoder models only",
    "assistant_early_exit": "about drafts, which change no result",
    "continuous_batching_config": "batching is this service's own",
    "transformers_version": "who wrote the file",
    **_all("not offered", "output_attentions", "output_hidden_states"),
    **_all(_SPEED, "use_cache", "cache_config", "max_cache_len"),
    **_all(_SPEED, "compile_config", "disable_compile", "prefill_chunk_size"),
    **_all(_REMOVED, "low_memory", "penalty_alpha", "dola_layers", "diversity_penalty"),
    **_all(_REMOVED, "num_beam_groups", "constraints", "force_words_ids"),
    **_all(
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
}
"""Notes on fields of theirs; for a field that is not offered, the reason."""


def fields() -> list[str]:
    """Returns the names of Hugging Face's fields, in their order."""
    return [name for name in vars(HFGenerationConfig()) if not name.startswith("_")]


def ours(name: str) -> list[str]:
    """Returns the names of our fields for one of theirs."""
    return [row.name for row in PARAMETERS.values() if row.hugging_face == name]


def hugging_face_table() -> str:
    """One row per field."""
    rows = [
        "| Hugging Face | here | supported | in a model's own file | |",
        "|---|---|---|---|---|",
    ]
    for name in fields():
        here = ", ".join(f"`{our}`" for our in ours(name)) or "none"
        supported = "yes" if ours(name) else "no"
        note = NOTES.get(name, "")
        rows.append(f"| `{name}` | {here} | {supported} | {_in_file(name)} | {note} |")
    return "\n".join(rows)


def processors_table() -> str:
    """One row per processor, in the order of application."""
    rows = ["| field | what it does | range | needs |", "|---|---|---|---|"]
    for row in PROCESSORS:
        interval = str(row.kind).partition(";")[0] if isinstance(row.kind, Number) else ""
        needs = ", ".join(f"`{need.condition}`" for need in row.needs if need.refused)
        rows.append(f"| `{row.name}` | {row.meaning} | {interval} | {needs} |")
    return "\n".join(rows)


def _in_file(name: str) -> str:
    """Says what a value in a model's own generation_config.json does."""
    if name in {"max_length", "max_new_tokens"} or name in default_fields.FIELDS:
        return "honored"
    return "refused" if name in loader.NOT_SAMPLED else "ignored"
