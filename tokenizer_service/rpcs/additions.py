"""`AddTokens` and `SetSpecialTokens`: the vocabulary changes."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from lockstep.v1 import vocabulary_admin_service_pb2 as pb
from lockstep.v1 import vocabulary_pb2

from rpc.errors import InvalidField, TokenIdOutOfRange
from tokenizer_service.growth import token_rules
from tokenizer_service.growth.revision_writer import Outcome
from tokenizer_service.growth.token_effects import TextEffect, changed_entries, text_effects
from tokenizer_service.growth.token_rules import Addition, AdditionRules, TokenToAdd
from tokenizer_service.rpcs.service import Service
from tokenizer_service.rpcs.vocabulary import vocabulary_entries
from tokenizer_service.store import Call
from tokenizer_service.text.token_table import TokenTable
from tokenizer_service.text.tokenizer import Tokenizer
from vocabulary import Change, Reference, Role, SpecialToken
from wire.violations import Violations
from wire.vocabulary import (
    read_added_token,
    read_initialization,
    read_role,
    read_values,
    vocabulary_ref,
)

MAX_CHANGED_ENTRIES = 16
# The largest number of float16. Far larger ones would make the logits of every call overflow.
MAX_VALUE = 65504

_UUID = re.compile("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


async def add_tokens(request: pb.AddTokensRequest, service: Service) -> pb.AddTokensResponse:
    """Adds tokens, or says what adding them would do.

    Raises:
        IdempotencyKeyReused: the key was used for another request.
        InvalidField: one or more fields are wrong, or a token is not allowed.
        QuotaExceeded: the caller has added what it may.
        RevisionConflict: there is a newer revision than expected.
        StoreUnavailable: the store failed.
        TokenExists: a token exists with other attributes.
    """
    violations = Violations()
    tokens = read_additions(request.tokens, violations)
    expected_revision = _read_expected_revision(request, violations)
    call = None if request.dry_run else _read_call("AddTokens", request, violations)
    violations.check()
    service.model_rows.check(tokens)
    rules = AdditionRules(
        unusual_characters=request.allow_unusual_characters,
        text_changes=request.allow_text_changes,
        max_added_tokens=service.max_added_tokens,
    )

    def plan(tokenizer: Tokenizer) -> Outcome:
        base_size = service.vocabulary.base_size
        addition = token_rules.plan(tokenizer, base_size, tokens, rules)
        new_tokens = iter(addition.change.tokens)
        for index, result in enumerate(addition.results):
            if not result.existing:
                service.model_rows.check_sources(index, next(new_tokens), base_size)

        def respond(after: Reference) -> bytes:
            response = _addition_response(addition, tokenizer, after)
            if request.dry_run:
                _add_effects(response, addition, tokenizer, tokens, request.texts)
            return response.SerializeToString(deterministic=True)

        return Outcome(addition.change, addition.after, respond)

    if call is None:
        reply = await service.vocabulary.preview(plan, expected_revision=expected_revision)
    else:
        with service.additions.used(len(tokens)):
            reply = await service.vocabulary.change(call, plan, expected_revision=expected_revision)
    return pb.AddTokensResponse.FromString(reply)


async def set_special_tokens(
    request: pb.SetSpecialTokensRequest, service: Service
) -> pb.SetSpecialTokensResponse:
    """Gives roles to ids.

    Raises:
        IdempotencyKeyReused: the key was used for another request.
        InvalidField: one or more fields are wrong, or a token is not special.
        RevisionConflict: there is a newer revision than expected.
        StoreUnavailable: the store failed.
        TokenIdOutOfRange: an id is not in the vocabulary.
    """
    violations = Violations()
    roles = _read_roles(request.special_tokens, violations)
    expected_revision = _read_expected_revision(request, violations)
    call = _read_call("SetSpecialTokens", request, violations)
    violations.check()

    def plan(tokenizer: Tokenizer) -> Outcome:
        _check_roles(roles, tokenizer)
        changed = [role for role in roles if tokenizer.roles.get(role.role) != role.token_id]
        change = Change(special_tokens=tuple(changed))

        def respond(after: Reference) -> bytes:
            response = pb.SetSpecialTokensResponse(vocabulary=vocabulary_ref(after))
            return response.SerializeToString(deterministic=True)

        return Outcome(change, tokenizer.grown(change) if changed else tokenizer, respond)

    reply = await service.vocabulary.change(call, plan, expected_revision=expected_revision)
    return pb.SetSpecialTokensResponse.FromString(reply)


def read_additions(tokens: Sequence[pb.TokenToAdd], violations: Violations) -> list[TokenToAdd]:
    """Reads tokens to add; what they say about text is checked later.

    Args:
        tokens: the tokens.
        violations: noted is that there are none, and members that contradict each other.
    """
    if not tokens:
        violations.add("tokens", "must not be empty")
    roles: set[Role] = set()
    return [
        _read_addition(f"tokens[{index}]", token, roles, violations)
        for index, token in enumerate(tokens)
    ]


def _read_addition(
    field: str, message: pb.TokenToAdd, taken: set[Role], violations: Violations
) -> TokenToAdd:
    initialization = read_initialization(
        f"{field}.initialization", message.initialization, violations
    )
    needed = {"copy": {"copy_token_id"}, "values": {"input_values"}}.get(initialization, set())
    optional = {"output_values"} if initialization == "values" else set()
    for member in ("copy_token_id", "input_values", "output_values"):
        if member in needed and not message.HasField(member):
            violations.add(f"{field}.{member}", f"must be set to initialize by {initialization}")
        if member not in needed | optional and message.HasField(member):
            violations.add(f"{field}.{member}", "does not belong to this initialization")
    input_values, output_values = read_values(field, message, violations)
    for name, values in (("input_values", input_values), ("output_values", output_values)):
        # NaN is above every bound, too.
        if not (np.abs(np.frombuffer(values, "<f4")) <= MAX_VALUE).all():
            bounds = f"must hold numbers in [-{MAX_VALUE}, {MAX_VALUE}]"
            violations.add(f"{field}.{name}.data", bounds)
    if output_values and len(output_values) != len(input_values):
        violations.add(f"{field}.output_values", "must have the shape of input_values")
    return TokenToAdd(
        token=read_added_token(message.token),
        roles=_read_roles_of_token(field, message, taken, violations),
        initialization=initialization,
        copy_token_id=message.copy_token_id if message.HasField("copy_token_id") else None,
        input_values=input_values,
        output_values=output_values,
        generable=message.generable if message.HasField("generable") else None,
    )


def _read_roles_of_token(
    field: str, message: pb.TokenToAdd, taken: set[Role], violations: Violations
) -> tuple[Role, ...]:
    """Reads the roles of a token and adds them to those that were given in this call."""
    given = [(f"{field}.more_roles[{i}]", role) for i, role in enumerate(message.more_roles)]
    if message.role != vocabulary_pb2.SPECIAL_TOKEN_ROLE_UNSPECIFIED:
        given.insert(0, (f"{field}.role", message.role))
    roles = []
    for path, value in given:
        role = read_role(path, value, violations)
        if role in taken:
            violations.add(path, "is given twice")
        taken.add(role)
        roles.append(role)
    return tuple(roles)


def _read_roles(
    messages: Iterable[vocabulary_pb2.SpecialToken], violations: Violations
) -> list[SpecialToken]:
    """Reads roles to assign; noted is that there are none, and one that is assigned twice."""
    roles: dict[Role, int] = {}
    for index, message in enumerate(messages):
        role = read_role(f"special_tokens[{index}].role", message.role, violations)
        if role in roles:
            violations.add(f"special_tokens[{index}].role", "is assigned twice")
        roles[role] = message.token_id
    if not roles:
        violations.add("special_tokens", "must not be empty")
    return [SpecialToken(role, token_id) for role, token_id in roles.items()]


def _check_roles(roles: Sequence[SpecialToken], tokenizer: Tokenizer) -> None:
    for index, special in enumerate(roles):
        field = f"special_tokens[{index}].token_id"
        if not 0 <= special.token_id < tokenizer.size:
            raise TokenIdOutOfRange(
                field,
                row=None,
                index=index,
                token_id=special.token_id,
                vocabulary_size=tokenizer.size,
            )
        if special.token_id not in tokenizer.control_ids:
            raise InvalidField(field, "must be the id of a special token")


def _read_expected_revision(
    request: pb.AddTokensRequest | pb.SetSpecialTokensRequest, violations: Violations
) -> int | None:
    """Reads the revision that the caller takes for the newest."""
    if not request.HasField("expected_revision"):
        return None
    return violations.in_range("expected_revision", request.expected_revision, 0, 2**63 - 1)


def _read_call(
    method: str,
    request: pb.AddTokensRequest | pb.SetSpecialTokensRequest,
    violations: Violations,
) -> Call:
    """Identifies a call. The method is part of it, as keys are shared by all of them."""
    key = request.idempotency_key
    if not _UUID.fullmatch(key):
        violations.add("idempotency_key", "must be a UUID in its 36-character form")
    data = method.encode() + b"\n" + request.SerializeToString(deterministic=True)
    return Call.of(key.lower(), data)


def _addition_response(
    addition: Addition, before: Tokenizer, after: Reference
) -> pb.AddTokensResponse:
    """Writes the report about added tokens."""
    return pb.AddTokensResponse(
        results=[
            pb.AddedTokenResult(
                id=result.id,
                existing=result.existing,
                becomes_special=result.becomes_special,
                previous_ids=result.previous_ids,
                changes_text=result.changes_text,
                previous_token_bytes=[before.table.token_bytes[i] for i in result.previous_ids],
            )
            for result in addition.results
        ],
        vocabulary=vocabulary_ref(after),
    )


def _add_effects(
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


def _effect(effect: TextEffect, table: TokenTable) -> pb.TextEffect:
    return pb.TextEffect(
        before=_text_tokens(effect.before, table),
        after=_text_tokens(effect.after, table),
        changes_text=effect.changes_text,
    )


def _text_tokens(ids: Iterable[int], table: TokenTable) -> pb.TextTokens:
    kept = list(ids)
    return pb.TextTokens(ids=kept, token_bytes=[table.token_bytes[token_id] for token_id in kept])
