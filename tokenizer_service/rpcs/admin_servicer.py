"""`lockstep.v1.VocabularyAdminService`: changes of the vocabulary, and their history."""

from lockstep.v1 import vocabulary_admin_service_pb2 as pb

from rpc.errors import InvalidField, TokenIdOutOfRange
from tokenizer_service.growth import token_rules
from tokenizer_service.growth.revision_writer import Outcome
from tokenizer_service.growth.token_rules import AdditionRules, TokenToAdd
from tokenizer_service.rpcs.addition_convert import add_effects, addition_response, read_additions
from tokenizer_service.rpcs.log_methods import LogMethods
from tokenizer_service.rpcs.served_tokenizer import Context
from tokenizer_service.rpcs.vocabulary_convert import (
    read_expected_revision,
    read_idempotency_key,
    read_roles,
    vocabulary_ref,
)
from tokenizer_service.store import Call
from tokenizer_service.text.tokenizer import Tokenizer
from vocabulary import Change, Reference, SpecialToken


class VocabularyAdminServicer(LogMethods):
    """Every method of the service: about changes of the vocabulary, and about its log."""

    async def AddTokens(
        self, request: pb.AddTokensRequest, context: Context
    ) -> pb.AddTokensResponse:
        tokens = read_additions(request.tokens)
        self.model_rows.check(tokens)
        expected_revision = read_expected_revision(request)
        rules = AdditionRules(
            unusual_characters=request.allow_unusual_characters,
            text_changes=request.allow_text_changes,
            max_added_tokens=self._max_added_tokens,
        )

        def plan(tokenizer: Tokenizer) -> Outcome:
            return self._plan_addition(tokenizer, tokens, rules, request)

        if request.dry_run:
            reply = await self._vocabulary.preview(plan, expected_revision=expected_revision)
        else:
            call = _call("AddTokens", request)
            reply = await self._vocabulary.change(call, plan, expected_revision=expected_revision)
        return pb.AddTokensResponse.FromString(reply)

    async def SetSpecialTokens(
        self, request: pb.SetSpecialTokensRequest, context: Context
    ) -> pb.SetSpecialTokensResponse:
        roles = read_roles(request.special_tokens)
        reply = await self._vocabulary.change(
            _call("SetSpecialTokens", request),
            lambda tokenizer: _plan_roles(tokenizer, roles),
            expected_revision=read_expected_revision(request),
        )
        return pb.SetSpecialTokensResponse.FromString(reply)

    def _plan_addition(
        self,
        tokenizer: Tokenizer,
        tokens: list[TokenToAdd],
        rules: AdditionRules,
        request: pb.AddTokensRequest,
    ) -> Outcome:
        base_size = self._vocabulary.base_size
        addition = token_rules.plan(tokenizer, base_size, tokens, rules)
        new_tokens = iter(addition.change.tokens)
        for index, result in enumerate(addition.results):
            if not result.existing:
                self.model_rows.check_sources(index, next(new_tokens), base_size)

        def respond(after: Reference) -> bytes:
            response = addition_response(addition, tokenizer, after)
            if request.dry_run:
                add_effects(response, addition, tokenizer, tokens, request.texts)
            return response.SerializeToString(deterministic=True)

        return Outcome(addition.change, addition.after, respond)


def _call(method: str, request: pb.AddTokensRequest | pb.SetSpecialTokensRequest) -> Call:
    """Identifies a call. The method is part of it, as keys are shared by all of them."""
    key = read_idempotency_key(request.idempotency_key)
    return Call.of(key, method.encode() + b"\n" + request.SerializeToString(deterministic=True))


def _plan_roles(tokenizer: Tokenizer, roles: tuple[SpecialToken, ...]) -> Outcome:
    for index, special in enumerate(roles):
        if not 0 <= special.token_id < tokenizer.size:
            raise TokenIdOutOfRange(
                f"special_tokens[{index}].token_id",
                row=0,
                index=index,
                token_id=special.token_id,
                vocabulary_size=tokenizer.size,
            )
        if special.token_id not in tokenizer.control_ids:
            raise InvalidField(
                f"special_tokens[{index}].token_id", "must be the id of a special token"
            )
    changed = [role for role in roles if tokenizer.roles.get(role.role) != role.token_id]
    change = Change(special_tokens=tuple(changed))

    def respond(after: Reference) -> bytes:
        response = pb.SetSpecialTokensResponse(vocabulary=vocabulary_ref(after))
        return response.SerializeToString(deterministic=True)

    return Outcome(change, tokenizer.grown(change) if changed else tokenizer, respond)
