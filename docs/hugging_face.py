"""The tables of generation fields: Hugging Face's, what each is here, and processors in order."""

from transformers import GenerationConfig as HFGenerationConfig

from lockstep_client._requests.hugging_face import HARMLESS, REFUSED
from model_service.engine.load import default_fields, loader
from model_service.protocol.number import Number
from model_service.protocol.parameters import PARAMETERS, PROCESSORS


def fields() -> list[str]:
    """Returns the names of Hugging Face's fields, in their order."""
    return [name for name in vars(HFGenerationConfig()) if not name.startswith("_")]


_ELSEWHERE = "asked for by each request"

NOTES = {
    "max_length": "a model's own is overridden by a request's `max_new_tokens`",
    "max_new_tokens": "Hugging Face's own default, 20 tokens, is not used",
    "min_length": "has no effect when `min_new_tokens` is set, as in `generate`",
    "prompt_lookup_num_tokens": (
        "changes speed; the result only as any other batch may, in the last bits of bfloat16"
    ),
    "output_scores": f"{_ELSEWHERE}: `scores.scores`",
    "output_logits": f"{_ELSEWHERE}: `scores.logits`",
    **{name: note for name, note in {**HARMLESS, **REFUSED}.items() if name in fields()},
}
"""Notes on fields of theirs; for a field that is not offered, the reason."""


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
