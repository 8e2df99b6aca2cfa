"""Where the tokenizer service is and how it is called: in plain text, or over TLS."""

from dataclasses import dataclass

import grpc

from rpc.tls import CallerFiles

_OPTIONS = [
    # A change may hold trained vectors; how much it holds, the tokenizer service limits.
    ("grpc.max_receive_message_length", -1),
    # Every channel connects anew, at once: when to try again is decided here.
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True, slots=True)
class TokenizerAddress:
    """A tokenizer service.

    Attributes:
        target: `host:port`.
        files: what is trusted and shown; None sends plain text.
        name: name to expect in its certificate; empty for that of the target.
    """

    target: str
    files: CallerFiles | None = None
    name: str = ""

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
