"""`AddTokens` between the wire and our own types."""

from collections.abc import Iterable, Sequence

import numpy as np
from lockstep.v1 import tensor_pb2, vocabulary_pb2
from lockstep.v1 import vocabulary_admin_service_pb2 as pb

from rpc.errors import InvalidField
from tokenizer_service.growth.imported_change import MAX_HIDDEN_SIZE
from tokenizer_service.growth.token_effects import TextEffect, changed_entries, text_effects
from tokenizer_service.growth.token_rules import Addition, TokenToAdd
from tokenizer_service.rpcs.request_fields import check_enum
from tokenizer_service.rpcs.vocabulary_convert import ROLES, vocabulary_entries, vocabulary_ref
from tokenizer_service.text.token_table import TokenTable
from tokenizer_service.text.tokenizer import Tokenizer
from vocabulary import AddedToken, Initialization, Reference, Role

MAX_CHANGED_ENTRIES = 16
# The largest number of float16. Far larger ones would make the logits of every call overflow.
MAX_VALUE = 65504

_INITIALIZATIONS: dict[int, Initialization] = {
    vocabulary_pb2.ROW_INITIALIZATION_UNSPECIFIED: "mean_of_pieces",
    vocabulary_pb2.ROW_INITIALIZATION_MEAN_OF_PIECES: "mean_of_pieces",
    vocabulary_pb2.ROW_INITIALIZATION_MEAN: "mean",
    vocabulary_pb2.ROW_INITIALIZATION_COPY: "copy",
    vocabulary_pb2.ROW_INITIALIZATION_ZERO: "zero",
    vocabulary_pb2.ROW_INITIALIZATION_VALUES: "values",
}


def addition_response(
    addition: Addition, before: Tokenizer, after: Reference
) -> pb.AddTokensResponse:
    """Converts the report about added tokens."""
    return pb.AddTokensResponse(
        results=[
            pb.AddedTokenResult(
                id=result.id,
                existing=result.existing,
                previous_ids=result.previous_ids,
                changes_text=result.changes_text,
                previous_token_bytes=[before.table.token_bytes[i] for i in result.previous_ids],
            )
            for result in addition.results
        ],
        vocabulary=vocabulary_ref(after),
    )


def add_effects(
    response: pb.AddTokensResponse,
    addition: Addition,
    before: Tokenizer,
    tokens: Sequence[TokenToAdd],
    texts: Sequence[str],
) -> None:
    """Adds what only a dry run reports.

    Args:
        response: what it is added to.
        addition: what would be done.
        before: the tokenizer before it.
        tokens: what was asked for.
        texts: the caller's texts.
    """
    after = addition.after
    own = text_effects(before, after, [new.token.content for new in tokens])
    changed = changed_entries(before, after, [new.token for new in tokens])
    for result, effect, entries in zip(response.results, own, changed, strict=True):
        result.effect.CopyFrom(_effect(effect, after.table))
        shown = vocabulary_entries(before.table, entries[:MAX_CHANGED_ENTRIES])
        result.changed_entries.extend(shown)
        result.num_changed_entries = len(entries)
    response.text_effects.extend(
        _effect(effect, after.table) for effect in text_effects(before, after, texts)
    )


def read_additions(
    tokens: Sequence[pb.TokenToAdd],
) -> list[TokenToAdd]:
    """Reads tokens to add; what they say about text is checked later.

    Raises:
        InvalidField: there are none, or members contradict each other.
    """
    if not tokens:
        raise InvalidField("tokens", "must not be empty")
    roles: set[Role] = set()
    return [_read_addition(f"tokens[{index}]", token, roles) for index, token in enumerate(tokens)]


def _read_roles(field: str, message: pb.TokenToAdd, taken: set[Role]) -> tuple[Role, ...]:
    """Reads the roles of a token and adds them to those that were given in this call."""
    given = [(f"{field}.more_roles[{i}]", role) for i, role in enumerate(message.more_roles)]
    if message.role != vocabulary_pb2.SPECIAL_TOKEN_ROLE_UNSPECIFIED:
        given.insert(0, (f"{field}.role", message.role))
    roles = []
    for path, value in given:
        role: Role = check_enum(path, value, ROLES)
        if role in taken:
            raise InvalidField(path, "is given twice")
        taken.add(role)
        roles.append(role)
    return tuple(roles)


def _read_addition(field: str, message: pb.TokenToAdd, taken: set[Role]) -> TokenToAdd:
    initialization: Initialization = check_enum(
        f"{field}.initialization", message.initialization, _INITIALIZATIONS
    )
    needed = {"copy": {"copy_token_id"}, "values": {"input_values"}}.get(initialization, set())
    optional = {"output_values"} if initialization == "values" else set()
    for member in ("copy_token_id", "input_values", "output_values"):
        if member in needed and not message.HasField(member):
            raise InvalidField(
                f"{field}.{member}", f"must be set to initialize by {initialization}"
            )
        if member not in needed | optional and message.HasField(member):
            raise InvalidField(f"{field}.{member}", "does not belong to this initialization")
    input_values = _read_values(f"{field}.input_values", message.input_values)
    output_values = _read_values(f"{field}.output_values", message.output_values)
    if output_values and len(output_values) != len(input_values):
        raise InvalidField(f"{field}.output_values", "must have the shape of input_values")
    return TokenToAdd(
        token=_read_token(message.token),
        roles=_read_roles(field, message, taken),
        initialization=initialization,
        copy_token_id=message.copy_token_id if message.HasField("copy_token_id") else None,
        input_values=input_values,
        output_values=output_values,
        generable=message.generable if message.HasField("generable") else None,
    )


def _read_token(message: vocabulary_pb2.AddedToken) -> AddedToken:
    return AddedToken(
        content=message.content,
        special=message.special,
        single_word=message.single_word,
        lstrip=message.lstrip,
        rstrip=message.rstrip,
        normalized=message.normalized if message.HasField("normalized") else not message.special,
    )


def _read_values(field: str, tensor: tensor_pb2.Tensor) -> bytes:
    """Reads a `[H]` float32 vector; nothing when it is unset."""
    if tensor == tensor_pb2.Tensor():
        return b""
    if tensor.dtype != tensor_pb2.DATA_TYPE_FLOAT32:
        raise InvalidField(f"{field}.dtype", "must be FLOAT32")
    if len(tensor.shape) != 1 or not 1 <= tensor.shape[0] <= MAX_HIDDEN_SIZE:
        raise InvalidField(f"{field}.shape", "must be [hidden size]")
    if len(tensor.data) != 4 * tensor.shape[0]:
        raise InvalidField(f"{field}.data", "must have the length that dtype and shape give")
    # NaN is above every bound, too.
    if not (np.abs(np.frombuffer(tensor.data, "<f4")) <= MAX_VALUE).all():
        raise InvalidField(f"{field}.data", f"must hold numbers in [-{MAX_VALUE}, {MAX_VALUE}]")
    return tensor.data


def _effect(effect: TextEffect, table: TokenTable) -> pb.TextEffect:
    return pb.TextEffect(
        before=_text_tokens(effect.before, table),
        after=_text_tokens(effect.after, table),
        changes_text=effect.changes_text,
    )


def _text_tokens(ids: Iterable[int], table: TokenTable) -> pb.TextTokens:
    kept = list(ids)
    return pb.TextTokens(ids=kept, token_bytes=[table.token_bytes[token_id] for token_id in kept])
