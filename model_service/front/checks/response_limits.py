"""How large answers may be, checked before anything runs."""

from dataclasses import dataclass

from rpc.errors import ResponseTooLarge

MAX_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """Bounds of answers.

    Attributes:
        max_message_bytes: most bytes of a message.
        max_step_bytes: most bytes of an answer to a step that comes in several messages.
    """

    max_message_bytes: int
    max_step_bytes: int

    @property
    def max_chunk_bytes(self) -> int:
        """Most bytes of scores in a message of a stream; what is around them may take as many."""
        return min(MAX_CHUNK_BYTES, self.max_message_bytes // 2)

    def check_message(self, num_bytes: int, remedy: str) -> None:
        """Checks an answer in one message.

        Args:
            num_bytes: most bytes that it can have.
            remedy: what to ask for instead, a sentence.

        Raises:
            ResponseTooLarge: it may not fit.
        """
        if num_bytes > self.max_message_bytes:
            raise ResponseTooLarge(num_bytes, self.max_message_bytes, remedy)

    def check_step(self, num_bytes: int, num_row_bytes: int, remedy: str) -> None:
        """Checks an answer to a step whose full rows may follow it.

        Args:
            num_bytes: most bytes that it can have.
            num_row_bytes: the bytes of full rows among them.
            remedy: as of `check_message`.

        Raises:
            ResponseTooLarge: it is larger than is kept until it is sent, or may not fit
                one message without the rows.
        """
        if num_bytes > self.max_step_bytes:
            raise ResponseTooLarge(num_bytes, self.max_step_bytes, remedy)
        inline_bytes = min(num_row_bytes, self.max_chunk_bytes)
        self.check_message(num_bytes - num_row_bytes + inline_bytes, remedy)
