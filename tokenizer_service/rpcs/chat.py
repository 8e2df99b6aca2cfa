"""`ApplyChatTemplate`: conversations become texts and ids."""

import json
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import tokens_pb2

from rpc.handlers import Serialized
from tokenizer_service.chat.chat import ChatRequest, RenderedChat, is_variable_name
from tokenizer_service.chat.template_renderer import RenderRequest
from tokenizer_service.rpcs.encode import read_text, read_truncation
from tokenizer_service.rpcs.padding import padded_batch, read_padding
from tokenizer_service.rpcs.service import RequestLimits, Service
from tokenizer_service.text.work_cost import chat_cost
from tokenizer_service.worker_pool import Pieces
from wire.violations import Violations
from wire.vocabulary import vocabulary_ref

_Json = TypeVar("_Json", dict[str, Any], list[Any])

# Of all messages of a call. A few characters of JSON may be an object.
MAX_EXTRA_CHARACTERS = 2**20
_MAX_JSON_DEPTH = 64

# A role becomes part of the control structure of the conversation.
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}")


async def apply_chat_template(request: pb.ApplyChatTemplateRequest, service: Service) -> Serialized:
    """Renders conversations and encodes them.

    Raises:
        ChatTemplateFailed: the template refused a conversation.
        InvalidField: one or more fields are wrong, or the rows cannot be padded so.
        NoChatTemplate: the tokenizer has none.
    """
    tokenizer = service.vocabulary.current
    violations = Violations()
    padding = read_padding("padding", request.padding, tokenizer.size, violations)
    cost = chat_cost(request.ByteSize())

    def read() -> Pieces[ChatRequest]:
        yield
        chat = _read_chat(request, violations, service.limits)
        violations.check()
        return chat

    chat = await service.pool.run_pieces(read(), cost)

    def respond(rendered: RenderedChat) -> Serialized:
        rows = [row.ids for row in rendered.rows]
        num_characters = sum(map(len, rendered.texts))
        service.metrics.encoded(rows)
        service.metrics.processed("chat", [len(row) for row in rows], num_characters)
        sequences = [tokens_pb2.TokenSequence(ids=row) for row in rows]
        response = pb.ApplyChatTemplateResponse(
            texts=rendered.texts,
            token_batch=tokens_pb2.TokenBatch(sequences=sequences),
            template_fingerprint=rendered.template_fingerprint,
            vocabulary=vocabulary_ref(tokenizer.reference),
        )
        if padding is not None:
            padded = padded_batch(rows, padding, tokenizer, service.limits)
            response.padded_batch.CopyFrom(padded)
        return Serialized(response.SerializeToString())

    with service.metrics.timed("chat"):
        return await service.templates.apply(
            tokenizer, chat, respond, request_bytes=cost.request_bytes
        )


def _read_chat(
    request: pb.ApplyChatTemplateRequest, violations: Violations, limits: RequestLimits
) -> ChatRequest:
    """Reads conversations and what goes with them, except for padding."""
    add_generation_prompt = not request.continue_final_message
    if request.HasField("add_generation_prompt"):
        add_generation_prompt = request.add_generation_prompt
    if add_generation_prompt and request.continue_final_message:
        violations.add("add_generation_prompt", "contradicts continue_final_message")
    render = RenderRequest(
        template=request.template_name,
        conversations=_read_conversations(request.conversations, violations, limits),
        add_generation_prompt=add_generation_prompt,
        continue_final_message=request.continue_final_message,
        tools=_read_objects("tools_json", request.tools_json, violations, limits),
        documents=_read_objects("documents_json", request.documents_json, violations, limits),
        variables=_read_variables(request.template_arguments_json, violations, limits),
    )
    truncation = None
    if request.HasField("truncation"):
        truncation = read_truncation("truncation", request.truncation, 0, violations)
    return ChatRequest(render, request.parse_special_tokens, truncation)


def _read_conversations(
    conversations: Sequence[pb.Conversation], violations: Violations, limits: RequestLimits
) -> list[list[dict[str, Any]]]:
    """Reads all messages; none of them where there are too many to be looked at."""
    if not violations.check_count("conversations", conversations, limits.max_items):
        return []
    sizes = (len(message.extra_json) for each in conversations for message in each.messages)
    total = sum(sizes)
    if total > MAX_EXTRA_CHARACTERS:
        violations.add(
            "conversations",
            f"have {total} characters of extra_json in total; the limit is {MAX_EXTRA_CHARACTERS}",
        )
        return []
    for index, conversation in enumerate(conversations):
        if not conversation.messages:
            violations.add(f"conversations[{index}].messages", "must not be empty")
    return [
        [
            _read_message(f"conversations[{i}].messages[{j}]", message, violations, limits)
            for j, message in enumerate(conversation.messages)
        ]
        for i, conversation in enumerate(conversations)
    ]


def _read_message(
    field: str, message: pb.ChatMessage, violations: Violations, limits: RequestLimits
) -> dict[str, Any]:
    members: dict[str, Any] = {"role": message.role}
    if message.HasField("content"):
        members["content"] = read_text(f"{field}.content", message.content, violations, limits)
    if message.extra_json:
        members |= _read_json(f"{field}.extra_json", message.extra_json, dict, violations)
    if not isinstance(members["role"], str) or not _ROLE.fullmatch(members["role"]):
        violations.add(
            f"{field}.role", "must be 1 to 64 letters, digits, spaces, dots, hyphens or underscores"
        )
    return members


def _read_objects(
    field: str, text: str, violations: Violations, limits: RequestLimits
) -> list[Any] | None:
    if not text:
        return None
    values = _read_json(field, read_text(field, text, violations, limits), list, violations)
    if not all(isinstance(value, dict) for value in values):
        violations.add(field, "must be an array of objects")
    return values


def _read_variables(text: str, violations: Violations, limits: RequestLimits) -> dict[str, Any]:
    field = "template_arguments_json"
    if not text:
        return {}
    variables = _read_json(field, read_text(field, text, violations, limits), dict, violations)
    if not all(is_variable_name(name) for name in variables):
        violations.add(field, "sets a variable that requests cannot set")
    return variables


def _read_json(field: str, text: str, kind: type[_Json], violations: Violations) -> _Json:
    """Reads JSON that a caller sent.

    Noted is what is not JSON of that kind, nests too deeply, or holds a number or a string that
    text cannot be made of.
    """
    name = "object" if kind is dict else "array"
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        # Half a surrogate pair passes `loads`, and everything after it fails.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        violations.add(field, f"must be a JSON {name}")
        return kind()
    if not isinstance(value, kind) or _depth(value) > _MAX_JSON_DEPTH:
        violations.add(field, f"must be a JSON {name} of at most {_MAX_JSON_DEPTH} levels")
        return kind()
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
    return depth
