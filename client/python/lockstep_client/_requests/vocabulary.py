"""Requests to `VocabularyAdminService`, built from keywords. Pure: no I/O."""

import uuid
from collections.abc import Iterable, Iterator, Mapping

from lockstep.v1 import vocabulary_admin_service_pb2 as admin_pb
from lockstep.v1 import vocabulary_pb2 as vocabulary_pb

from lockstep_client._requests.options import AddOptions, ChangeOptions
from lockstep_client._values import token_ids
from lockstep_client._values.choices import check_names, choose
from lockstep_client._values.new_token import ROLES, NewToken

_PIECE_BYTES = 2**20


def add_tokens(tokens: Iterable[str | NewToken], options: AddOptions) -> admin_pb.AddTokensRequest:
    """Builds an `AddTokens` request.

    Raises:
        TypeError: `tokens` is one text, or a keyword does not exist.
    """
    check_names(options, AddOptions)
    if isinstance(tokens, str):
        raise TypeError("A list of tokens is expected, for example ['<tool>'].")
    special = options.get("special", False)
    new_tokens = (NewToken(t, special=special) if isinstance(t, str) else t for t in tokens)
    return admin_pb.AddTokensRequest(
        tokens=[token.to_message() for token in new_tokens],
        expected_revision=options.get("expected_revision"),
        idempotency_key=options.get("idempotency_key") or str(uuid.uuid4()),
        dry_run=options.get("dry_run"),
        allow_unusual_characters=options.get("allow_unusual_characters"),
        allow_text_changes=options.get("allow_text_changes"),
        texts=options.get("texts", ()),
    )


def set_special_tokens(
    roles: Mapping[str, int], options: ChangeOptions
) -> admin_pb.SetSpecialTokensRequest:
    """Builds a `SetSpecialTokens` request from roles (`pad`, `eos`, ...) and ids.

    Raises:
        TypeError: a keyword does not exist, or an id is not a whole number.
        ValueError: a role does not exist.
    """
    check_names(options, ChangeOptions)
    return admin_pb.SetSpecialTokensRequest(
        special_tokens=[
            vocabulary_pb.SpecialToken(
                role=choose("role", role, ROLES), token_id=token_ids.one(token_id)
            )
            for role, token_id in roles.items()
        ],
        expected_revision=options.get("expected_revision"),
        idempotency_key=options.get("idempotency_key") or str(uuid.uuid4()),
    )


def import_revisions(archive: bytes | Iterable[bytes]) -> Iterator[admin_pb.ImportRevisionsRequest]:
    """Cuts an archive, or pieces of one, into the requests of an `ImportRevisions` call."""
    for piece in [archive] if isinstance(archive, bytes) else archive:
        for start in range(0, len(piece), _PIECE_BYTES):
            yield admin_pb.ImportRevisionsRequest(data=piece[start : start + _PIECE_BYTES])
