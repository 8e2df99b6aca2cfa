"""What Hugging Face's `generate` takes beyond this client: what is harmless, and why not the rest.

`docs/generation.md` takes its reasons from here.
"""

from collections.abc import Mapping
from typing import Any

from lockstep_client.exceptions import WrongType

_ASSISTANT = "takes a second model"
_REMOVED = "Hugging Face has moved it to code on the hub, which is never run"
_SPEED = "about speed and memory, not about results"
_STREAM = "iterate over `stream` instead"


def _all(note: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, note)


HARMLESS: Mapping[str, str] = {
    "use_mtp": "about drafts of the model's own heads",
    "return_dict_in_generate": "answers are objects, always",
    "pad_token_id": "rows run without padding",
    "bos_token_id": "every prompt has a token",
    "decoder_start_token_id": "encoder-decoder models only",
    "assistant_early_exit": "about drafts, which change no result",
    "continuous_batching_config": "batching is this service's own",
    "transformers_version": "who wrote the file",
    **_all(_SPEED, "use_cache", "cache_config", "max_cache_len", "synced_gpus"),
    **_all(_SPEED, "compile_config", "disable_compile", "prefill_chunk_size"),
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
"""Changes no result here, and why."""

REFUSED: Mapping[str, str] = {
    "cache_implementation": "`quantized` changes results and is refused; the others change none",
    "token_healing": "takes a tokenizer, which this service has not",
    **_all("not offered", "output_attentions", "output_hidden_states"),
    **_all(_REMOVED, "low_memory", "penalty_alpha", "dola_layers", "diversity_penalty"),
    **_all(_REMOVED, "num_beam_groups", "constraints", "force_words_ids"),
    **_all(_REMOVED, "custom_generate", "trust_remote_code"),
    **_all(_ASSISTANT, "assistant_model", "assistant_tokenizer"),
    "watermarking_config": "give `green_list_watermark` or `synth_id_watermark`",
    "streamer": _STREAM,
    "stream": _STREAM,
    "stopping_criteria": "no code is run by the service; give `stop_strings`, `stop_token_ids`, "
    "`stop_sequences` or `max_time`, or leave a `stream`",
    "logits_processor": "no code is run by the service; give `processors`, or choose the tokens "
    "in a session",
    "prefix_allowed_tokens_fn": "no code is run by the service; give `allowed_token_ids`, or "
    "choose the tokens in a session",
    "inputs": "give prompts, or `input_ids`",
    "inputs_embeds": "prompts are ids",
    "past_key_values": "a session keeps the KV cache",
    "stop": "give `stop_strings`, or `stop_token_ids`",
    "max_tokens": "give `max_new_tokens`",
    "n": "give `num_return_sequences`",
    "best_of": "give `num_return_sequences`",
    "logprobs": "give `selection=ScoreSelection(logits=True, top_k=..., logsumexp=True)`",
}
"""Is refused, and why or what to do instead."""


def accepted(options: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keywords without those of Hugging Face's that change nothing here.

    Args:
        options: keywords.
        own: those of the call.

    Raises:
        WrongType: one is of Hugging Face's and not offered.
    """
    given: dict[str, Any] = {**_of_config(options.get("generation_config")), **options}
    given.pop("generation_config", None)
    for name, value in list(given.items()):
        if name in own or (name not in HARMLESS and name not in REFUSED):
            continue
        if name in REFUSED and value is not None and value is not False:
            raise WrongType(f"{name} is not taken here: {REFUSED[name]}.")
        del given[name]
    return given


def _of_config(config: Any) -> Mapping[str, Any]:
    """Returns the keywords of a `GenerationConfig` of Hugging Face's, or of a mapping.

    Raises:
        InvalidArgument: it has another form.
    """
    if config is None or isinstance(config, Mapping):
        return config or {}
    if not hasattr(config, "to_diff_dict"):
        raise WrongType(
            "generation_config is a mapping of keywords or a GenerationConfig of transformers, "
            f"not {config!r}."
        )
    given: dict[str, Any] = config.to_diff_dict()
    return {
        name: value
        for name, value in given.items()
        if value is not None and not name.startswith("_")
    }
