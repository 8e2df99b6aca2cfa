"""What calls cost, estimated from above, so that memory can be limited."""

from collections.abc import Sequence

from tokenizer_service.text.encoding import EncodeOptions, Text
from tokenizer_service.worker_pool import Cost

# Per byte of text, for every byte may be a token. Measured: the library's encoding of a
# row and our lists of it, without and with details.
_ROW_BYTES, _DETAILED_ROW_BYTES = 64, 288

# Per token of a response: the id, and what details add.
_ID_BYTES, _DETAIL_BYTES = 3, 24

# The parts of a response and the whole, for the moment in which both are there.
_COPIES = 2

# Per byte of a request with ids: the ids as numbers of Python.
_IDS_BYTES = 40


def encoding_cost(items: Sequence[Text], options: EncodeOptions, max_response_bytes: int) -> Cost:
    """Estimates what encoding items costs.

    Args:
        items: the texts.
        options: how they are encoded.
        max_response_bytes: where a response ends that grows too large.
    """
    sizes = [item.num_bytes for item in items]
    row = _DETAILED_ROW_BYTES if options.detailed else _ROW_BYTES
    token = _ID_BYTES + _DETAIL_BYTES * options.detailed
    response = min(sum(sizes) * token, max_response_bytes)
    return Cost(sum(sizes), max(sizes) * row + _COPIES * response)


def decoding_cost(request_bytes: int, max_response_bytes: int) -> Cost:
    """Estimates what work on ids costs.

    Args:
        request_bytes: size of the message that has the ids.
        max_response_bytes: where a response ends that grows too large.
    """
    response = min(request_bytes * _IDS_BYTES, max_response_bytes)
    return Cost(request_bytes, request_bytes * _IDS_BYTES + _COPIES * response)


def chat_cost(text_bytes: int) -> Cost:
    """Estimates what work on conversations costs, all of which may be one.

    Args:
        text_bytes: of all of them together.
    """
    return Cost(text_bytes, text_bytes * _ROW_BYTES)
