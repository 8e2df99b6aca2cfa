"""The flags of a generation, which several commands share."""

import difflib
import functools
import inspect
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Annotated, Any, Final

import typer
from google.protobuf.descriptor import FieldDescriptor
from lockstep.v1 import generation_pb2 as generation_pb

from lockstep_client._requests import generation_config
from lockstep_client._values import fields

_sampling = partial(typer.Option, rich_help_panel="Sampling")

# Keywords whose flag has another name than the keyword; None of the others in `_flags` has.
NAMES: Final = {
    "stop_strings": "stop",
    "do_sample": "sample",
    "num_beams": "beams",
    "logit_bias": "bias",
}
_DRAWS: Final = (
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "top_h",
    "top_n_sigma",
    "epsilon_cutoff",
    "eta_cutoff",
)
LENGTHS: Final = ("max_new_tokens", "stop_strings", "num_beams")
"""Keywords that say when a generation ends, and not how a token is chosen."""


def _flags(
    *,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", "-n", min=1, help="Most tokens to generate.")
    ] = None,
    stop_strings: Annotated[
        list[str] | None,
        typer.Option(
            "--stop", metavar="TEXT", help="End with this text. Can be given several times."
        ),
    ] = None,
    do_sample: Annotated[
        bool | None,
        _sampling(
            "--sample/--greedy",
            help="Draw tokens, or take the most probable ones. The model's default if neither.",
        ),
    ] = None,
    temperature: Annotated[
        float | None, _sampling(help="Divisor of the logits. Implies --sample.")
    ] = None,
    top_k: Annotated[
        int | None, _sampling(help="Keep the k best tokens; 0 keeps all. Implies --sample.")
    ] = None,
    top_p: Annotated[
        float | None,
        _sampling(help="Keep the best tokens up to this probability. Implies --sample."),
    ] = None,
    min_p: Annotated[
        float | None,
        _sampling(
            help="Keep tokens at least this times as probable as the best. Implies --sample."
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None, _sampling(help="Divisor that makes repeated tokens less likely; 1 is off.")
    ] = None,
    presence_penalty: Annotated[
        float | None, _sampling(help="Subtracted once from tokens that were generated; 0 is off.")
    ] = None,
    frequency_penalty: Annotated[
        float | None,
        _sampling(help="Subtracted per occurrence from tokens that were generated; 0 is off."),
    ] = None,
    logit_bias: Annotated[
        list[str] | None,
        _sampling(
            "--bias",
            metavar="ID=VALUE",
            help="Add to the logit of this id. Can be given several times.",
        ),
    ] = None,
    num_beams: Annotated[
        int | None,
        _sampling(
            "--beams",
            metavar="N",
            min=1,
            help="Number of beams of a search for the likeliest text, which is printed at its end.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        _sampling(help="Seed of the draws: the same seed draws the same tokens. Implies --sample."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        _sampling(
            "--set",
            metavar="NAME=VALUE",
            help="Any other field of the configuration, for example --set typical_p=0.9 or "
            "--set 'bad_words_ids=[[5, 6]]'. Can be given several times.",
        ),
    ] = None,
) -> None:
    """Has the flags as its parameters."""


def generation(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the flags of a generation, which it takes as `keywords`.

    Args:
        without: keywords that the command has no flag for.
    """
    flags = [
        parameter
        for name, parameter in inspect.signature(_flags).parameters.items()
        if name not in without
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            given = {flag.name: arguments.pop(flag.name) for flag in flags}
            command(**arguments, keywords=_keywords(given))

        signature = inspect.signature(command)
        own = [each for each in signature.parameters.values() if each.name != "keywords"]
        place = sum(each.kind is not each.KEYWORD_ONLY for each in own)
        parameters = [*own[:place], *flags, *own[place:]]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def flag(keyword: str) -> str:
    """Returns the flag of a generation keyword."""
    if keyword in inspect.signature(_flags).parameters:
        return "--" + NAMES.get(keyword, keyword).replace("_", "-")
    return f"--set {keyword}"


def _keywords(given: dict[str, Any]) -> dict[str, Any]:
    """Returns generation keywords. Those that shape a draw imply that tokens are drawn.

    Raises:
        typer.BadParameter: a value is not what a keyword takes.
    """
    bias = dict(_bias(each) for each in given.pop("logit_bias", None) or [])
    settings = given.pop("settings") or []
    keywords = {name: value for name, value in given.items() if value is not None}
    if bias:
        keywords["logit_bias"] = bias
    for name, value in _settings(settings):
        if name in keywords:
            raise typer.BadParameter(f"{flag(name)} is given, too.", param_hint=f"--set {name}")
        keywords[name] = value
    if any(name in keywords for name in _DRAWS):
        keywords.setdefault("do_sample", True)
    if "seed" in keywords and not keywords["do_sample"]:
        raise typer.BadParameter("has no effect together with --greedy.", param_hint="--seed")
    return keywords


def _bias(assignment: str) -> tuple[int, float]:
    token_id, _, bias = assignment.partition("=")
    try:
        return int(token_id), float(bias)
    except ValueError:
        raise typer.BadParameter(
            f"{assignment!r} is not ID=VALUE, such as 504=-2.5.", param_hint="--bias"
        ) from None


def _settings(assignments: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Reads `NAME=VALUE`, each value as the type of its field in the schema."""
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or name not in generation_config.KEYWORDS:
            close = difflib.get_close_matches(name, generation_config.KEYWORDS, n=1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise typer.BadParameter(
                f"{assignment!r} is not NAME=VALUE with the name of a field.{meant}",
                param_hint="--set",
            )
        value = _value(name, text)
        try:
            generation_config.build({name: value})
        except (TypeError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint=f"--set {name}") from None
        yield name, value


def _value(name: str, text: str) -> Any:
    """Reads JSON, and as a text what is none or belongs to a field of texts."""
    field: Any = generation_pb.GenerationConfig.DESCRIPTOR.fields_by_name.get(name)
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if (
        field is not None
        and field.type == FieldDescriptor.TYPE_STRING
        and not fields.is_repeated(field)
    ):
        return text
    return value
