"""The sequences of one `DecodeStream` call."""

from collections.abc import Sequence

from lockstep.v1 import tokenizer_service_pb2

from rpc.errors import InvalidField
from rpc.slices import slices
from tokenizer_service.rpcs.request_fields import check_ids
from tokenizer_service.rpcs.response_parts import ResponseParts
from tokenizer_service.rpcs.vocabulary_convert import vocabulary_ref
from tokenizer_service.text.incremental import DecodeOptions, IncrementalDecoder
from tokenizer_service.text.tokenizer import Tokenizer
from tokenizer_service.worker_pool import Pieces

# Open sequences of one call. Each is a few hundred bytes.
MAX_SEQUENCES = 1024


class SequenceDecoders:
    """One decoder per sequence, from its first message to its last."""

    def __init__(self) -> None:
        self._decoders: dict[int, IncrementalDecoder] = {}

    def push(
        self,
        tokenizer: Tokenizer,
        request: tokenizer_service_pb2.DecodeStreamRequest,
        limit_bytes: int,
    ) -> Pieces[tokenizer_service_pb2.DecodeStreamResponse]:
        """Appends ids to a sequence and returns the text that became certain.

        Args:
            tokenizer: the newest revision; ids of older ones mean the same in it.
            request: the message.
            limit_bytes: the largest response that is sent.

        Raises:
            InvalidField: too many sequences are open.
            ResponseTooLarge: the text is too long.
            TokenIdOutOfRange: an id is not in the vocabulary.
        """
        ids: Sequence[int] = request.ids
        check_ids("ids", 0, ids, tokenizer.size)
        decoder = self._decoder(tokenizer, request)
        pieces = map(decoder.push, slices(ids))
        text = yield from ResponseParts(limit_bytes).collect(pieces, "")
        if request.end_of_sequence:
            text += decoder.finish()
            del self._decoders[request.sequence_id]
        return tokenizer_service_pb2.DecodeStreamResponse(
            sequence_id=request.sequence_id,
            text=text,
            pending_byte_count=0 if request.end_of_sequence else decoder.pending_bytes,
            end_of_sequence=request.end_of_sequence,
            vocabulary=vocabulary_ref(tokenizer.reference),
        )

    def _decoder(
        self, tokenizer: Tokenizer, request: tokenizer_service_pb2.DecodeStreamRequest
    ) -> IncrementalDecoder:
        decoder = self._decoders.get(request.sequence_id)
        if decoder is not None:
            decoder.follow(tokenizer)
            return decoder
        if len(self._decoders) >= MAX_SEQUENCES:
            raise InvalidField(
                "sequence_id", f"exceeds the limit of {MAX_SEQUENCES} sequences at a time"
            )
        decoder = tokenizer.decoder(read_decode_options(request.options))
        self._decoders[request.sequence_id] = decoder
        return decoder


def read_decode_options(message: tokenizer_service_pb2.DecodeOptions) -> DecodeOptions:
    """Reads how ids become text."""
    skip = message.skip_special_tokens if message.HasField("skip_special_tokens") else True
    clean_up = None
    if message.HasField("clean_up_tokenization_spaces"):
        clean_up = message.clean_up_tokenization_spaces
    return DecodeOptions(skip, clean_up)
