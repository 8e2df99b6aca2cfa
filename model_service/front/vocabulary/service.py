"""The tokenizer service that is followed: where it is, how it is called, what it is asked first."""

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import grpc
from lockstep.v1 import tokenizer_service_pb2, tokenizer_service_pb2_grpc

from rpc.identity.interceptor import AUTHORIZATION_KEY
from rpc.tls import CallerFiles

_OPTIONS = [
    # A change may hold trained vectors; how much it holds, the tokenizer service limits.
    ("grpc.max_receive_message_length", -1),
    # Every channel connects again at once: when to try again is decided here.
    ("grpc.use_local_subchannel_pool", 1),
]

_FIRST_PAUSE_S = 0.1
_MOST_PAUSE_S = 1.0
_SPELLING_TIMEOUT_S = 10.0


class ConflictError(Exception):
    """The tokenizer service has another vocabulary than this model."""


@dataclass(frozen=True, slots=True)
class TokenizerAddress:
    """A tokenizer service.

    Attributes:
        target: `host:port`.
        files: what is trusted and shown; None sends plain text.
        name: name to expect in its certificate; empty for the name of the target.
        token_file: file with the bearer token that is sent, or None.
    """

    target: str
    files: CallerFiles | None = None
    name: str = ""
    token_file: Path | None = None

    def channel(self) -> grpc.aio.Channel:
        """Creates a channel for one connection.

        Raises:
            OSError: a TLS file cannot be read.
            ssl.SSLError: the TLS files do not fit together.
        """
        if self.files is None:
            return grpc.aio.insecure_channel(self.target, _OPTIONS)
        name = [("grpc.ssl_target_name_override", self.name)] if self.name else []
        return grpc.aio.secure_channel(self.target, self.files.credentials(), [*_OPTIONS, *name])

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns what calls of one connection are sent with.

        Raises:
            OSError: the file of the token cannot be read.
        """
        if self.token_file is None:
            return ()
        return ((AUTHORIZATION_KEY, f"Bearer {self.token_file.read_text().strip()}"),)


class Backoff:
    """Pauses that grow, and that replicas which lost the same service do not share.

    Whoever is in a hurry ends a pause, but never before the shortest one is over.
    """

    def __init__(self) -> None:
        """Begins with the shortest pause."""
        self._pause_s = _FIRST_PAUSE_S

    def reset(self) -> None:
        """Starts again from the beginning: the service has answered."""
        self._pause_s = _FIRST_PAUSE_S

    async def pause(self, hurry: asyncio.Event) -> None:
        """Waits for the next attempt.

        Args:
            hurry: set while a request waits for what the service has.
        """
        pause_s = self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, _MOST_PAUSE_S)
        least_s = min(pause_s, _FIRST_PAUSE_S)
        await asyncio.sleep(least_s)
        try:
            async with asyncio.timeout(pause_s - least_s):
                await hurry.wait()
        except TimeoutError:
            pass


async def fetch_spelling(
    stub: "tokenizer_service_pb2_grpc.TokenizerServiceAsyncStub",
    info: tokenizer_service_pb2.GetTokenizerInfoResponse,
    metadata: tuple[tuple[str, str], ...],
) -> list[bytes] | None:
    """Fetches the bytes of every id of revision 0; later ids bring theirs.

    Args:
        stub: the tokenizer service.
        info: what it says about itself.
        metadata: what is sent with the call.

    Returns:
        Bytes by id; None when the text of its tokens is not their concatenation.

    Raises:
        ConflictError: the service does not have as many ids as it says.
    """
    if not info.token_bytes_concatenate:
        return None
    token_bytes: list[bytes] = []
    request = tokenizer_service_pb2.GetVocabularyRequest()
    parts = stub.GetVocabulary(request, timeout=_SPELLING_TIMEOUT_S, metadata=metadata)
    async for part in parts:
        token_bytes += [entry.token_bytes for entry in part.entries]
    if len(token_bytes) < info.base_size:
        raise ConflictError(
            f"the tokenizer service names {len(token_bytes)} of its {info.base_size} ids"
        )
    return token_bytes[: info.base_size]
