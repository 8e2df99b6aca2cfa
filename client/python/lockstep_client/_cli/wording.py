"""Failures in the words of a command line: flags instead of fields."""

import re
from typing import Final

from lockstep_client._cli.generation import flag
from lockstep_client._requests import generation_config
from lockstep_client.exceptions import FieldViolation, InvalidArgument, InvalidField, LockstepError

# What the services advise, as it is done on a command line.
_REMEDIES: Final = {
    r"set do_sample=False\b": "use --greedy",
    r"do_sample=True\b": "--sample",
    r"set lenient=True\b": "add --set lenient=true",
}
_KEYWORD: Final = re.compile(
    "|".join(rf"(?<![-\w])`?{name}`?(?!\w)" for name in generation_config.KEYWORDS if "_" in name)
)


def describe(error: LockstepError) -> str:
    """Says on one line what failed: which argument, or the class, which names the reason."""
    if isinstance(error, InvalidField) and error.violations:
        text = "; ".join(_violation(violation) for violation in error.violations)
    elif isinstance(error, InvalidArgument):  # of a type of Python's
        text = _in_flags(str(error))
    else:
        text = f"{type(error).__name__}: {error}"
    hint = "" if error.retry_delay_s is None else f" (retry in {error.retry_delay_s:g} s)"
    return f"{' '.join(text.split())}{hint}"


def _violation(violation: FieldViolation) -> str:
    field = violation.field
    if field.startswith("prompt") and "at least one token" in violation.description:
        return "the prompt is empty"
    name = re.split(r"[.\[]", field)[0]
    if name in generation_config.KEYWORDS:
        field = flag(name)
    return f"{field}: {_in_flags(violation.description)}"


def _in_flags(text: str) -> str:
    for pattern, remedy in _REMEDIES.items():
        text = re.sub(pattern, remedy, text)
    return _KEYWORD.sub(lambda found: flag(found[0].strip("`")), text)
