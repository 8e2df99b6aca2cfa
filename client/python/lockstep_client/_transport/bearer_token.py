"""What a client shows to say who it is: a bearer token."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lockstep_client.exceptions import WrongType, WrongValue

KEY: Final = "authorization"

Token = str | os.PathLike[str] | Callable[[], str]
"""A token, the path of a file that holds it, or a function that returns it."""


def metadata(token: Token | None) -> tuple[tuple[str, str], ...]:
    """Returns what a call is sent with: the token as it is now.

    Raises:
        WrongType: it is not a text.
        WrongValue: the file cannot be read, or what it holds cannot be a token.
    """
    return () if token is None else ((KEY, f"Bearer {_read(token)}"),)


def check(token: Any, *, secure: bool, in_plain_text: bool) -> None:
    """Checks how a token is given; what it is shows when it is sent.

    Args:
        token: what the caller gave.
        secure: whether the connection is encrypted.
        in_plain_text: whether the caller allows another.

    Raises:
        WrongType: it is nothing that a token comes from.
        WrongValue: it would be sent in plain text.
    """
    if token is None:
        return
    if not (isinstance(token, str | os.PathLike) or callable(token)):
        raise WrongType("token is a text, a Path of a file, or a function that returns a text.")
    if not secure and not in_plain_text:
        raise WrongValue(
            "token needs `tls`: whoever reads it on its way can use it. Where that cannot happen, "
            "allow it with `token_in_plain_text=True`."
        )


def _read(token: Token) -> str:
    if isinstance(token, os.PathLike):
        try:
            value = Path(token).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise WrongValue(f"The file of `token` cannot be read: {error}") from None
    else:
        value = token if isinstance(token, str) else token()
    if not isinstance(value, str):
        raise WrongType("The function given as `token` returned no text.")
    value = value.strip()
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise WrongValue("`token` is empty, or has characters that no token has.")
    return value
