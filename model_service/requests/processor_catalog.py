"""The processors and warpers on offer, as `ListLogitsProcessors` describes them.

In the order in which they are applied. The names are those of the fields of
`GenerationConfig` that switch them on.
"""

import json
from dataclasses import dataclass


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

PROCESSORS = (
    ProcessorDescription(
        "repetition_penalty",
        "Divides positive and multiplies negative logits of ids already in the sequence.",
        _schema(penalty={"type": "number", "exclusiveMinimum": 0, "maximum": 100}),
        warper=False,
    ),
    ProcessorDescription(
        "min_new_tokens",
        "Excludes end-of-sequence ids until that many tokens were generated.",
        _schema(min_new_tokens={"type": "integer", "minimum": 0}),
        warper=False,
    ),
    ProcessorDescription(
        "temperature",
        "Divides scores: below 1 sharpens the distribution, above 1 flattens it.",
        _schema(temperature={"type": "number", "exclusiveMinimum": 0, "maximum": 1e6}),
        warper=True,
    ),
    ProcessorDescription(
        "top_k",
        "Keeps the k highest scores and all ties of the k-th.",
        _schema(
            top_k={"type": "integer", "minimum": 1},
            min_tokens_to_keep=_MIN_TOKENS,
        ),
        warper=True,
    ),
    ProcessorDescription(
        "top_p",
        "Keeps the smallest set of ids whose probability reaches top_p.",
        _schema(
            top_p={"type": "number", "minimum": 0, "maximum": 1},
            min_tokens_to_keep=_MIN_TOKENS,
        ),
        warper=True,
    ),
)
