"""Requests to `VocabularyAdminService`, built from keywords. Pure: no I/O."""

import uuid
from collections.abc import Iterable, Iterator, Mapping

from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb
from lockstep.v1 import vocabulary_admin_service_pb2 as admin_pb
from lockstep.v1 import vocabulary_pb2 as vocabulary_pb

from lockstep_client._requests.options import AddOptions, ChangeOptions
from lockstep_client._values import token_ids
from lockstep_client._values.choices import check_names, choose
from lockstep_client._values.messages import build
from lockstep_client._values.new_token import ROLES, NewToken
from lockstep_client.exceptions import WrongType, WrongValue

_PIECE_BYTES = 2**20


def add_tokens(tokens: Iterable[str | NewToken], options: AddOptions) -> admin_pb.AddTokensRequest:
    """Builds an `AddTokens` request.

    Raises:
        TypeError: `tokens` is one text, or a keyword does not exist.
    """
    check_names(options, AddOptions)
    if isinstance(tokens, str) or not isinstance(tokens, Iterable):
        raise WrongType(f"A list of tokens is expected, for example ['<tool>'], not {tokens!r}.")
    tokens = list(tokens)
    for token in tokens:
        if not isinstance(token, str | NewToken):
            raise WrongType(f"A token is a text or a NewToken, not {token!r}.")
    if isinstance(options.get("texts"), str):
        raise WrongType(f"texts is a list of texts, for example [{options['texts']!r}].")
    special = options.get("special", False)
    new_tokens = (NewToken(t, special=special) if isinstance(t, str) else t for t in tokens)
    return build(
        admin_pb.AddTokensRequest,
        tokens=[token.to_message() for token in new_tokens],
        expected_revision=options.get("expected_revision"),
        idempotency_key=options.get("idempotency_key") or str(uuid.uuid4()),
        dry_run=options.get("dry_run"),
        allow_unusual_characters=options.get("allow_unusual_characters"),
        allow_text_changes=options.get("allow_text_changes"),
        texts=options.get("texts", ()),
    )


def spelled(roles: Mapping[str, int | str]) -> tokenizer_pb.ConvertTokensRequest:
    """Builds the request that looks up the tokens that are given by their spelling.

    Raises:
        InvalidArgument: it has another form.
    """
    if not isinstance(roles, Mapping):
        raise WrongType(f'roles are a mapping such as {{"pad": 2}}, not {roles!r}.')
    tokens = [token for token in roles.values() if isinstance(token, str)]
    return tokenizer_pb.ConvertTokensRequest(tokens=tokens)


def resolved(
    roles: Mapping[str, int | str], found: tokenizer_pb.ConvertTokensResponse
) -> dict[str, int | str]:
    """Returns roles with ids in place of spellings.

    Raises:
        WrongValue: there is no such token.
    """
    tokens = iter(found.tokens)
    ids: dict[str, int | str] = {}
    for role, token in roles.items():
        if not isinstance(token, str):
            ids[role] = token
            continue
        looked_up = next(tokens)
        if not looked_up.HasField("id"):
            raise WrongValue(f"{role}: there is no token {token!r}; add it with add_tokens first.")
        ids[role] = looked_up.id
    return ids


def set_special_tokens(
    roles: Mapping[str, int | str], options: ChangeOptions
) -> admin_pb.SetSpecialTokensRequest:
    """Builds a `SetSpecialTokens` request from roles (`pad`, `eos`, ...) and ids.

    Raises:
        TypeError: a keyword does not exist, or an id is not a whole number.
        ValueError: a role does not exist.
    """
    check_names(options, ChangeOptions)
    return build(
        admin_pb.SetSpecialTokensRequest,
        special_tokens=[
            build(
                vocabulary_pb.SpecialToken,
                role=choose("role", role, ROLES),
                token_id=token_ids.one(token_id),
            )
            for role, token_id in roles.items()
        ],
        expected_revision=options.get("expected_revision"),
        idempotency_key=options.get("idempotency_key") or str(uuid.uuid4()),
    )


def import_revisions(archive: bytes | Iterable[bytes]) -> Iterator[admin_pb.ImportRevisionsRequest]:
    """Cuts an archive, or pieces of one, into the requests of an `ImportRevisions` call.

    Raises:
        InvalidArgument: it has another form.
    """
    if isinstance(archive, str) or not isinstance(archive, Iterable):
        raise WrongType(f"An archive is bytes, or pieces of bytes, not {archive!r}.")
    return _pieces(archive)


def _pieces(archive: bytes | Iterable[bytes]) -> Iterator[admin_pb.ImportRevisionsRequest]:
    for piece in [archive] if isinstance(archive, bytes) else archive:
        for start in range(0, len(piece), _PIECE_BYTES):
            yield build(admin_pb.ImportRevisionsRequest, data=piece[start : start + _PIECE_BYTES])
