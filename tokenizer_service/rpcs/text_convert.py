"""Texts and conversations between the wire and our own types."""

import re
from collections.abc import MutableSequence, Sequence
from typing import Any, TypeVar

from lockstep.v1 import tokenizer_service_pb2

from rpc.errors import InvalidField
from rpc.slices import slices
from tokenizer_service.chat.chat import ChatRequest, is_variable_name
from tokenizer_service.chat.template_renderer import RenderRequest
from tokenizer_service.rpcs.batch_convert import read_side
from tokenizer_service.rpcs.request_fields import (
    MAX_ROW_LENGTH,
    RequestLimits,
    check_count,
    check_enum,
    check_range,
    check_text,
    read_json,
)
from tokenizer_service.text import offsets
from tokenizer_service.text.encoding import EncodedRow, EncodeOptions, Text, Truncation
from tokenizer_service.text.tokenizer import Tokenizer

_T = TypeVar("_T")

_UNITS: dict[int, offsets.Unit | None] = {
    tokenizer_service_pb2.OFFSET_UNIT_UNSPECIFIED: None,
    tokenizer_service_pb2.OFFSET_UNIT_BYTES: "bytes",
    tokenizer_service_pb2.OFFSET_UNIT_CODE_POINTS: "code_points",
    tokenizer_service_pb2.OFFSET_UNIT_UTF16: "utf16",
}

# Of all messages of a call. A few characters of JSON may be an object.
MAX_EXTRA_CHARACTERS = 2**20

# A role becomes part of the control structure of the conversation.
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}")


def read_texts(
    items: Sequence[tokenizer_service_pb2.TextItem], limits: RequestLimits
) -> list[Text]:
    """Reads texts and pairs.

    Raises:
        InvalidField: there are none, too many, or one is too long.
    """
    check_count("items", items, limits.max_items)
    return [read_text(f"items[{index}]", item, limits) for index, item in enumerate(items)]


def read_text(field: str, item: tokenizer_service_pb2.TextItem, limits: RequestLimits) -> Text:
    """Reads a text or a pair.

    Raises:
        InvalidField: it is too long.
    """
    text = check_text(f"{field}.text", item.text, limits)
    if not item.HasField("text_pair"):
        return Text(text)
    return Text(text, check_text(f"{field}.text_pair", item.text_pair, limits))


def read_encode_options(
    message: tokenizer_service_pb2.EncodeOptions, items: Sequence[Text], tokenizer: Tokenizer
) -> EncodeOptions:
    """Reads options, except for padding.

    Raises:
        InvalidField: an option is out of its range.
    """
    add_special_tokens = (
        message.add_special_tokens if message.HasField("add_special_tokens") else True
    )
    num_template_tokens = 0
    if add_special_tokens:
        kinds = {item.pair is not None for item in items}
        num_template_tokens = max(tokenizer.template_length(pair=pair) for pair in kinds)
    truncation = None
    if message.HasField("truncation"):
        truncation = read_truncation("options.truncation", message.truncation, num_template_tokens)
    return EncodeOptions(
        add_special_tokens=add_special_tokens,
        parse_special_tokens=message.parse_special_tokens,
        truncation=truncation,
        offset_unit=check_enum("options.offset_unit", message.offset_unit, _UNITS),
        special_tokens_mask=message.return_special_tokens_mask,
        word_ids=message.return_word_ids,
        tokens=message.return_tokens,
        token_bytes=message.return_token_bytes,
        token_type_ids=message.return_token_type_ids,
    )


def read_truncation(
    field: str, message: tokenizer_service_pb2.TruncationOptions, num_template_tokens: int
) -> Truncation:
    """Reads how rows are cut.

    Raises:
        InvalidField: a member is out of its range, or template tokens alone exceed it.
    """
    check_range(f"{field}.max_length", message.max_length, 1, MAX_ROW_LENGTH)
    if message.max_length < num_template_tokens:
        raise InvalidField(
            f"{field}.max_length",
            f"must be at least {num_template_tokens}, the tokens that are added to each row",
        )
    return Truncation(message.max_length, read_side(f"{field}.side", message.side, "right"))


def details(row: EncodedRow) -> tokenizer_service_pb2.EncodingDetails:
    """Converts what was asked for in addition to ids, one list at a time: others run in between."""
    message = tokenizer_service_pb2.EncodingDetails(truncated_token_count=row.num_truncated)
    for spans in slices(row.spans):
        message.offset_starts.extend([start for start, _ in spans])
        message.offset_ends.extend([end for _, end in spans])
    _extend(message.special_tokens_mask, row.special_tokens_mask)
    _extend(message.word_ids, row.word_ids)
    _extend(message.tokens, row.tokens)
    _extend(message.token_bytes, row.token_bytes)
    _extend(message.token_type_ids, row.token_type_ids)
    return message


def _extend(field: MutableSequence[_T], values: Sequence[_T]) -> None:
    for some in slices(values):
        field.extend(some)


def read_chat(
    request: tokenizer_service_pb2.ApplyChatTemplateRequest, limits: RequestLimits
) -> ChatRequest:
    """Reads conversations and what goes with them, except for padding.

    Raises:
        InvalidField: something is missing, too long, or no JSON.
    """
    check_count("conversations", request.conversations, limits.max_items)
    _check_extra_bytes(request.conversations)
    add_generation_prompt = not request.continue_final_message
    if request.HasField("add_generation_prompt"):
        add_generation_prompt = request.add_generation_prompt
    if add_generation_prompt and request.continue_final_message:
        raise InvalidField("add_generation_prompt", "contradicts continue_final_message")
    render = RenderRequest(
        template=request.template_name,
        conversations=[
            _read_conversation(f"conversations[{index}]", conversation, limits)
            for index, conversation in enumerate(request.conversations)
        ],
        add_generation_prompt=add_generation_prompt,
        continue_final_message=request.continue_final_message,
        tools=_read_objects("tools_json", request.tools_json, limits),
        documents=_read_objects("documents_json", request.documents_json, limits),
        variables=_read_variables(request.template_arguments_json, limits),
    )
    truncation = None
    if request.HasField("truncation"):
        truncation = read_truncation("truncation", request.truncation, 0)
    return ChatRequest(render, request.parse_special_tokens, truncation)


def _check_extra_bytes(conversations: Sequence[tokenizer_service_pb2.Conversation]) -> None:
    """Checks the further fields of all messages together."""
    sizes = (len(message.extra_json) for each in conversations for message in each.messages)
    total = sum(sizes)
    if total > MAX_EXTRA_CHARACTERS:
        raise InvalidField(
            "conversations",
            f"have {total} characters of extra_json in total; the limit is {MAX_EXTRA_CHARACTERS}",
        )


def _read_conversation(
    field: str, conversation: tokenizer_service_pb2.Conversation, limits: RequestLimits
) -> list[dict[str, Any]]:
    if not conversation.messages:
        raise InvalidField(f"{field}.messages", "must not be empty")
    return [
        _read_message(f"{field}.messages[{index}]", message, limits)
        for index, message in enumerate(conversation.messages)
    ]


def _read_message(
    field: str, message: tokenizer_service_pb2.ChatMessage, limits: RequestLimits
) -> dict[str, Any]:
    members: dict[str, Any] = {"role": message.role}
    if message.HasField("content"):
        members["content"] = check_text(f"{field}.content", message.content, limits)
    if message.extra_json:
        members |= read_json(f"{field}.extra_json", message.extra_json, dict)
    if not isinstance(members["role"], str) or not _ROLE.fullmatch(members["role"]):
        raise InvalidField(
            f"{field}.role", "must be 1 to 64 letters, digits, spaces, dots, hyphens or underscores"
        )
    return members


def _read_objects(field: str, text: str, limits: RequestLimits) -> list[Any] | None:
    if not text:
        return None
    values: list[Any] = read_json(field, check_text(field, text, limits), list)
    if not all(isinstance(value, dict) for value in values):
        raise InvalidField(field, "must be an array of objects")
    return values


def _read_variables(text: str, limits: RequestLimits) -> dict[str, Any]:
    field = "template_arguments_json"
    if not text:
        return {}
    variables: dict[str, Any] = read_json(field, check_text(field, text, limits), dict)
    if not all(is_variable_name(name) for name in variables):
        raise InvalidField(field, "sets a variable that requests cannot set")
    return variables
