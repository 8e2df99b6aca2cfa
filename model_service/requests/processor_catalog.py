"""The processors and warpers on offer, as `ListLogitsProcessors` describes them.

In the order in which they are applied. The names are those of the fields of
`GenerationConfig` that switch them on.
"""

import json
from dataclasses import dataclass

from model_service import active_processors


@dataclass(frozen=True, slots=True)
class ProcessorDescription:
    """One processor.

    Attributes:
        name: its name.
        description: what it does.
        arguments_schema_json: JSON schema of its arguments.
        warper: whether it is applied only when sampling.
    """

    name: str
    description: str
    arguments_schema_json: str
    warper: bool


def _schema(**properties: dict[str, object]) -> str:
    required = [name for name, schema in properties.items() if "default" not in schema]
    return json.dumps(
        {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        sort_keys=True,
    )


_MIN_TOKENS: dict[str, object] = {"type": "integer", "minimum": 1, "default": 1}
_COUNT: dict[str, object] = {"type": "integer", "minimum": 0}
_LENGTH: dict[str, object] = {"type": "integer", "minimum": 1}
_ID: dict[str, object] = {"type": "integer", "minimum": 0}
_IDS: dict[str, object] = {"type": "array", "items": _ID, "minItems": 1}
_RUNS: dict[str, object] = {"type": "array", "items": _IDS, "minItems": 1}
_BIAS: dict[str, object] = {"type": "number", "minimum": -100, "maximum": 100}
_PENALTY: dict[str, object] = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
_SHARE: dict[str, object] = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
_CUTOFF: dict[str, object] = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}

_ARGUMENTS: dict[str, tuple[str, str]] = {
    "guidance_scale": (
        "Mixes the log-probabilities after the prompt with those after a negative prompt.",
        _schema(
            guidance_scale={"type": "number", "minimum": 0, "maximum": 100},
            negative_prompt=_IDS | {"default": None},
        ),
    ),
    "sequence_bias": (
        "Adds to the score of the last id of a run when the ids before it match.",
        _schema(
            sequence_bias={
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"ids": _IDS, "bias": {"type": "number"}},
                    "required": ["ids", "bias"],
                    "additionalProperties": False,
                },
            }
        ),
    ),
    "encoder_repetition_penalty": (
        "Multiplies positive and divides negative logits of ids of the prompt.",
        _schema(penalty=_PENALTY),
    ),
    "repetition_penalty": (
        "Divides positive and multiplies negative logits of ids already in the sequence.",
        _schema(penalty=_PENALTY, prompt_ignore_length=_COUNT | {"default": 0}),
    ),
    "presence_penalty": (
        "Subtracts from ids that were generated.",
        _schema(penalty=_BIAS),
    ),
    "frequency_penalty": (
        "Subtracts from ids that were generated, once per occurrence.",
        _schema(penalty=_BIAS),
    ),
    "logit_bias": (
        "Adds to the scores of single ids.",
        _schema(logit_bias={"type": "object", "additionalProperties": _BIAS}),
    ),
    "no_repeat_ngram_size": (
        "Excludes ids that would repeat a run of the sequence.",
        _schema(ngram_size=_LENGTH),
    ),
    "encoder_no_repeat_ngram_size": (
        "Excludes ids that would repeat a run of the prompt.",
        _schema(ngram_size=_LENGTH),
    ),
    "bad_words_ids": (
        "Excludes the last id of a run when the ids before it match.",
        _schema(bad_words_ids=_RUNS),
    ),
    "min_length": (
        "Excludes end-of-sequence ids until prompt and continuation have that length.",
        _schema(min_length=_COUNT),
    ),
    "min_new_tokens": (
        "Excludes end-of-sequence ids until that many tokens were generated.",
        _schema(min_new_tokens=_COUNT),
    ),
    "allowed_token_ids": (
        "Excludes all ids but these.",
        _schema(token_ids=_IDS),
    ),
    "forced_prefix": (
        "Makes the continuation begin with these ids.",
        _schema(token_ids=_IDS),
    ),
    "forced_bos_token_id": (
        "Makes this id follow a prompt of one token.",
        _schema(token_id=_ID),
    ),
    "forced_eos_token_ids": (
        "Makes one of these ids the last one that the length limit leaves room for.",
        _schema(token_ids=_IDS),
    ),
    "remove_invalid_values": (
        "Replaces NaN by 0 and infinities by the largest finite numbers.",
        _schema(),
    ),
    "exponential_decay_length_penalty": (
        "Raises the scores of end-of-sequence ids more with every token after a length.",
        _schema(start_index=_COUNT, decay_factor=_PENALTY),
    ),
    "suppress_tokens": (
        "Excludes ids.",
        _schema(token_ids=_IDS),
    ),
    "begin_suppress_tokens": (
        "Excludes ids from the first generated token.",
        _schema(token_ids=_IDS),
    ),
    "temperature": (
        "Divides scores: below 1 sharpens the distribution, above 1 flattens it.",
        _schema(temperature={"type": "number", "exclusiveMinimum": 0, "maximum": 1e6}),
    ),
    "top_h": (
        "Keeps the highest-scored ids up to a share of the entropy.",
        _schema(top_h=_SHARE),
    ),
    "top_k": (
        "Keeps the k highest scores and all ties of the k-th.",
        _schema(top_k=_LENGTH, min_tokens_to_keep=_MIN_TOKENS),
    ),
    "top_p": (
        "Keeps the smallest set of ids whose probability reaches top_p.",
        _schema(
            top_p={"type": "number", "minimum": 0, "maximum": 1},
            min_tokens_to_keep=_MIN_TOKENS,
        ),
    ),
    "min_p": (
        "Keeps ids at least min_p times as probable as the most probable one.",
        _schema(min_p=_SHARE, min_tokens_to_keep=_MIN_TOKENS),
    ),
    "typical_p": (
        "Keeps the ids of most typical probability up to a mass.",
        _schema(typical_p=_SHARE, min_tokens_to_keep=_MIN_TOKENS),
    ),
    "epsilon_cutoff": (
        "Drops ids below a probability.",
        _schema(epsilon=_CUTOFF, min_tokens_to_keep=_MIN_TOKENS),
    ),
    "eta_cutoff": (
        "Drops ids below a probability that falls with the entropy.",
        _schema(epsilon=_CUTOFF, min_tokens_to_keep=_MIN_TOKENS),
    ),
    "green_list_watermark": (
        "Adds to the scores of a share of the ids, chosen by a keyed hash of the tokens before.",
        _schema(
            greenlist_ratio=_CUTOFF | {"default": 0.25},
            bias=_BIAS | {"default": 2.0},
            hashing_key=_COUNT | {"default": 15485863},
            self_hash={"type": "boolean", "default": False},
            context_width=_LENGTH | {"default": 1},
        ),
    ),
    "renormalize_logits": (
        "Makes scores log-probabilities.",
        _schema(),
    ),
}

PROCESSORS = tuple(
    ProcessorDescription(name, *_ARGUMENTS[name], warper=name in active_processors.WARPERS)
    for table in (
        active_processors.PROCESSORS,
        active_processors.WARPERS,
        active_processors.CLOSING,
    )
    for name in table
)
