"""The bytes of the ids of revision 0, which the tokenizer service knows; later ids bring theirs."""

from lockstep.v1 import tokenizer_service_pb2, tokenizer_service_pb2_grpc

from model_service.front.vocabulary.conflict import ConflictError

TIMEOUT_S = 10.0


async def fetch_spelling(
    stub: "tokenizer_service_pb2_grpc.TokenizerServiceAsyncStub",
    info: tokenizer_service_pb2.GetTokenizerInfoResponse,
) -> list[bytes] | None:
    """Fetches the bytes of every id.

    Args:
        stub: the tokenizer service.
        info: what it says about itself.

    Returns:
        Bytes by id; None when the text of its tokens is not their concatenation.

    Raises:
        ConflictError: the service does not have as many ids as it says.
    """
    if not info.token_bytes_concatenate:
        return None
    token_bytes: list[bytes] = []
    request = tokenizer_service_pb2.GetVocabularyRequest()
    async for part in stub.GetVocabulary(request, timeout=TIMEOUT_S):
        token_bytes += [entry.token_bytes for entry in part.entries]
    if len(token_bytes) < info.base_size:
        raise ConflictError(
            f"the tokenizer service names {len(token_bytes)} of its {info.base_size} ids"
        )
    return token_bytes[: info.base_size]
