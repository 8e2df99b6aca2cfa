"""Results of the tokenizer service, except batches."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb
from lockstep.v1 import vocabulary_pb2 as vocabulary_pb

from lockstep_client._results.reading import read
from lockstep_client._values import enums, html
from lockstep_client._values.batch import Batch, Encoding, Padded, ReturnTensors
from lockstep_client._values.one_line import one_line
from lockstep_client._values.vocabulary_ref import VocabularyRef
from lockstep_client.exceptions import ProtocolError


@dataclass(frozen=True, slots=True)
class DecodedText:
    """One decoded row.

    Attributes:
        text: the text; bytes that are not valid UTF-8 appear as U+FFFD.
        raw_bytes: the bytes; empty unless asked for.
        round_trip: whether encoding `text` gives the same ids; None unless asked.
        first_difference: index of the first id that differs.
    """

    text: str
    raw_bytes: bytes = b""
    round_trip: bool | None = None
    first_difference: int | None = None

    __repr__ = one_line


@dataclass(frozen=True, slots=True)
class VocabularyEntry:
    """One entry of the vocabulary.

    Attributes:
        id: the id.
        token_bytes: the bytes it stands for, not always valid UTF-8 alone.
        type: `normal`, `byte`, `special`, `added` or `unused`.
        spelling: how it is written inside the tokenizer, for example `Ġthe`.
    """

    id: int
    token_bytes: bytes
    type: str
    spelling: str

    @property
    def visible(self) -> str:
        r"""What it stands for, with every character visible: `␣the`, `⏎`, `\xf0`."""
        return html.piece(self.token_bytes)

    @classmethod
    def from_message(cls, message: vocabulary_pb.VocabularyEntry) -> Self:
        """Reads the wire form."""
        return read(cls, message)


@dataclass(frozen=True, slots=True)
class ConvertedTokens:
    """Ids and entries that were looked up.

    Attributes:
        ids: id of each spelling; None for a spelling that does not exist.
        entries: entry of each id.
    """

    ids: list[int | None]
    entries: list[VocabularyEntry]

    __repr__ = one_line


@dataclass(frozen=True, slots=True)
class TokenizerInfo:
    """Description of a tokenizer.

    Attributes:
        vocabulary: the newest revision of the replica that answered.
        base_size: number of ids at revision 0.
        model_max_length: longest sequence the model was made for; None when unknown.
        special_tokens: id of each role, for example `{"eos": 2}`.
        pad_token_id: id used for padding when a request gives none.
        control_token_ids: ids that are control tokens.
        model_type: `BPE`, `Unigram`, `WordPiece` or `WordLevel`.
        chat_templates: SHA-256 of each chat template, by name.
        max_items: most texts of one call.
        max_text_bytes: most bytes of one text.
        max_message_bytes: most bytes of one request.
        server_version: version of the server.
    """

    vocabulary: VocabularyRef
    base_size: int
    model_max_length: int | None
    special_tokens: dict[str, int]
    pad_token_id: int
    control_token_ids: list[int]
    model_type: str
    chat_templates: dict[str, str]
    max_items: int
    max_text_bytes: int
    max_message_bytes: int
    server_version: str

    __repr__ = one_line

    @classmethod
    def from_message(cls, message: tokenizer_pb.GetTokenizerInfoResponse) -> Self:
        """Reads the wire form."""
        return read(
            cls,
            message,
            vocabulary=VocabularyRef.from_message(message.vocabulary),
            special_tokens=roles(message.special_tokens),
            chat_templates={t.name: t.fingerprint for t in message.chat_templates},
            max_items=message.limits.max_items,
            max_text_bytes=message.limits.max_text_bytes,
            max_message_bytes=message.limits.max_message_bytes,
        )


def roles(special_tokens: Iterable[vocabulary_pb.SpecialToken]) -> dict[str, int]:
    """Returns the id of each role, for example `{"eos": 2}`."""
    return {
        enums.name(vocabulary_pb.SpecialTokenRole.DESCRIPTOR, token.role): token.token_id
        for token in special_tokens
    }


def encoded(response: tokenizer_pb.EncodeResponse, return_tensors: ReturnTensors = "np") -> Batch:
    """Reads the answer of `Encode`."""
    return Batch(
        token_ids=[list(row.ids) for row in response.token_batch.sequences],
        vocabulary=VocabularyRef.from_message(response.vocabulary),
        padded=_padded(response, return_tensors),
        return_tensors=return_tensors,
        encodings=[Encoding.from_message(details) for details in response.details],
    )


def rendered(
    response: tokenizer_pb.ApplyChatTemplateResponse, return_tensors: ReturnTensors = "np"
) -> Batch:
    """Reads the answer of `ApplyChatTemplate`."""
    return Batch(
        token_ids=[list(row.ids) for row in response.token_batch.sequences],
        vocabulary=VocabularyRef.from_message(response.vocabulary),
        padded=_padded(response, return_tensors),
        return_tensors=return_tensors,
        texts=list(response.texts),
    )


def padded(
    response: tokenizer_pb.PadResponse,
    request: tokenizer_pb.PadRequest,
    return_tensors: ReturnTensors = "np",
) -> Batch:
    """Reads the answer of `Pad`; the ragged ids are the request's."""
    return Batch(
        token_ids=[list(row.ids) for row in request.token_batch.sequences],
        vocabulary=VocabularyRef.from_message(response.vocabulary),
        padded=_padded(response, return_tensors),
        return_tensors=return_tensors,
    )


def _padded(
    response: tokenizer_pb.EncodeResponse
    | tokenizer_pb.ApplyChatTemplateResponse
    | tokenizer_pb.PadResponse,
    return_tensors: ReturnTensors,
) -> Padded | None:
    if not response.HasField("padded_batch"):
        return None
    rectangle = Padded.from_message(response.padded_batch)
    return rectangle.to_torch() if return_tensors == "pt" else rectangle


def decoded(response: tokenizer_pb.DecodeResponse) -> list[DecodedText]:
    """Reads the answer of `Decode`."""
    return [read(DecodedText, row) for row in response.texts]


def converted(response: tokenizer_pb.ConvertTokensResponse) -> ConvertedTokens:
    """Reads the answer of `ConvertTokens`."""
    return ConvertedTokens(
        ids=[token.id if token.HasField("id") else None for token in response.tokens],
        entries=[VocabularyEntry.from_message(entry) for entry in response.entries],
    )


def artifact(pieces: Iterable[tokenizer_pb.GetTokenizerArtifactResponse]) -> bytes:
    """Puts the pieces of the tokenizer's files together.

    Raises:
        ProtocolError: the archive is not the one that its checksum names.
    """
    data, sha256 = bytearray(), ""
    for piece in pieces:
        data += piece.data
        sha256 = piece.sha256
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ProtocolError("The tokenizer's files arrived damaged or incomplete.")
    return bytes(data)
