"""Requests to `TokenizerService`, built from keywords. Pure: no I/O."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lockstep.v1 import tokenizer_service_pb2 as tokenizer_pb
from lockstep.v1 import tokens_pb2 as tokens_pb

from lockstep_client._requests.options import (
    ChatOptions,
    DecodeOptions,
    EncodeOptions,
    PaddingOptions,
)
from lockstep_client._values import batch as batches
from lockstep_client._values import enums, token_ids, vocabulary_ref
from lockstep_client._values.batch import SIDES, Batch, Prompts, Row
from lockstep_client._values.choices import check_names, choose
from lockstep_client._values.messages import build
from lockstep_client.exceptions import WrongType, WrongValue

TextPair = tuple[str, str]
Texts = str | Sequence[str | TextPair]
ChatMessages = Sequence[Mapping[str, Any]]

_MESSAGES = '[{"role": "user", "content": "Hi"}]'
_OFFSET_UNITS = enums.values(tokenizer_pb.OffsetUnit)
_STRATEGIES: dict[bool | str, tokenizer_pb.PaddingStrategy] = {
    True: tokenizer_pb.PADDING_STRATEGY_LONGEST,
    "longest": tokenizer_pb.PADDING_STRATEGY_LONGEST,
    "max_length": tokenizer_pb.PADDING_STRATEGY_MAX_LENGTH,
}


def encode(texts: Texts, options: EncodeOptions) -> tokenizer_pb.EncodeRequest:
    """Builds an `Encode` request.

    Args:
        texts: one text, or texts and pairs of texts.
        options: see `EncodeOptions`.
    """
    check_names(options, EncodeOptions)
    unit = options.get("return_offsets")
    return build(
        tokenizer_pb.EncodeRequest,
        items=text_items(texts),
        options=build(
            tokenizer_pb.EncodeOptions,
            add_special_tokens=options.get("add_special_tokens"),
            parse_special_tokens=options.get("parse_special_tokens"),
            truncation=_truncation(options),
            padding=_padding(options),
            offset_unit=None if unit is None else choose("return_offsets", unit, _OFFSET_UNITS),
            return_special_tokens_mask=options.get("return_special_tokens_mask"),
            return_word_ids=options.get("return_word_ids"),
            return_tokens=options.get("return_tokens"),
            return_token_bytes=options.get("return_token_bytes"),
            return_token_type_ids=options.get("return_token_type_ids"),
        ),
        min_revision=options.get("min_revision"),
    )


def count_tokens(
    texts: Texts, add_special_tokens: bool | None, parse_special_tokens: bool | None
) -> tokenizer_pb.CountTokensRequest:
    """Builds a `CountTokens` request."""
    return build(
        tokenizer_pb.CountTokensRequest,
        items=text_items(texts),
        add_special_tokens=add_special_tokens,
        parse_special_tokens=parse_special_tokens,
    )


def text_items(texts: Texts) -> list[tokenizer_pb.TextItem]:
    """Builds the items of one text, or of texts and pairs of texts.

    Raises:
        InvalidArgument: it has another form.
    """
    if not isinstance(texts, str) and not _is_list(texts):
        raise WrongType(f"A text, or a list of them, is expected, not {texts!r}{_hint(texts)}.")
    items = []
    for text in [texts] if isinstance(texts, str) else texts:
        pair = (text, None) if isinstance(text, str) else text
        if not _is_list(pair) or len(pair) != 2 or not isinstance(pair[0], str):
            raise WrongType(f"A text or a pair of texts is expected, not {text!r}{_hint(text)}.")
        first, second = pair
        items.append(build(tokenizer_pb.TextItem, text=first, text_pair=second))
    return items


def is_one_row(rows: Prompts | Sequence[int]) -> bool:
    """Says whether ids are one row and not a batch of rows.

    Raises:
        InvalidArgument: it has another form.
    """
    if isinstance(rows, Batch | Mapping):
        return False
    if not hasattr(rows, "__len__"):
        raise WrongType(f"A row of token ids, or a list of rows, is expected, not {rows!r}.")
    return len(rows) > 0 and np.ndim(rows[0]) == 0


def decode(rows: Prompts | Sequence[int], options: DecodeOptions) -> tokenizer_pb.DecodeRequest:
    """Builds a `Decode` request for one row of ids, or a batch of rows.

    Raises:
        TypeError: `rows` is neither, or a keyword does not exist.
    """
    check_names(options, DecodeOptions)
    batch: Any = [rows] if is_one_row(rows) else rows
    return build(
        tokenizer_pb.DecodeRequest,
        batch=batches.prompt_message(batch),
        options=decode_options(options),
        return_bytes=options.get("return_bytes"),
        check_round_trip=options.get("check_round_trip"),
        vocabulary=vocabulary_ref.message(batches.vocabulary_of(batch)),
    )


def decode_options(options: DecodeOptions) -> tokenizer_pb.DecodeOptions:
    """Builds the options of `Decode` and `DecodeStream`."""
    return build(
        tokenizer_pb.DecodeOptions,
        skip_special_tokens=options.get("skip_special_tokens"),
        clean_up_tokenization_spaces=options.get("clean_up_tokenization_spaces"),
    )


def convert_tokens(tokens: Sequence[str], ids: Row) -> tokenizer_pb.ConvertTokensRequest:
    """Builds a `ConvertTokens` request.

    Raises:
        InvalidArgument: it has another form.
    """
    if isinstance(tokens, str):
        raise WrongType(f"A list of spellings is expected, for example [{tokens!r}].")
    return build(tokenizer_pb.ConvertTokensRequest, tokens=tokens, ids=token_ids.row(ids))


def decode_piece(ids: Row) -> tokenizer_pb.DecodeStreamRequest:
    """Builds a message of `DecodeStream` with the next ids."""
    return build(tokenizer_pb.DecodeStreamRequest, ids=token_ids.row(ids))


def get_vocabulary(start_id: int) -> tokenizer_pb.GetVocabularyRequest:
    """Builds a `GetVocabulary` request."""
    return build(tokenizer_pb.GetVocabularyRequest, start_id=token_ids.one(start_id))


def pad(rows: Batch | Sequence[Row], options: PaddingOptions) -> tokenizer_pb.PadRequest:
    """Builds a `Pad` request."""
    check_names(options, PaddingOptions)
    unpadded = rows.token_ids if isinstance(rows, batches.Batch) else rows
    return build(
        tokenizer_pb.PadRequest,
        token_batch=batches.ragged_message(unpadded),
        padding=_padding({"padding": "longest", **options}),
    )


def apply_chat_template(
    conversations: ChatMessages | Sequence[ChatMessages], options: ChatOptions
) -> tokenizer_pb.ApplyChatTemplateRequest:
    """Builds an `ApplyChatTemplate` request for one conversation or several."""
    check_names(options, ChatOptions)
    return build(
        tokenizer_pb.ApplyChatTemplateRequest,
        conversations=[
            build(
                tokenizer_pb.Conversation, messages=[_chat_message(message) for message in messages]
            )
            for messages in _conversations(conversations)
        ],
        add_generation_prompt=options.get("add_generation_prompt"),
        continue_final_message=options.get("continue_final_message"),
        template_name=options.get("template_name"),
        tools_json=_json_list("tools", options.get("tools")),
        documents_json=_json_list("documents", options.get("documents")),
        template_arguments_json=_json(options.get("template_arguments")),
        parse_special_tokens=options.get("parse_special_tokens"),
        padding=_padding(options),
        truncation=_truncation(options),
    )


def are_several_conversations(given: ChatMessages | Sequence[ChatMessages]) -> bool:
    """Says whether a list has conversations, and not the messages of one."""
    return bool(given) and all(map(_is_list, given))


def _padding(options: Mapping[str, Any]) -> tokenizer_pb.PaddingOptions | None:
    strategy, side = options.get("padding", False), _side(options, "padding_side")
    if strategy is False or strategy is None:
        return None
    pad_token_id = options.get("pad_token_id")
    to_max_length = strategy == "max_length"
    return build(
        tokenizer_pb.PaddingOptions,
        strategy=choose("padding", strategy, _STRATEGIES),
        side=side,
        pad_to_multiple_of=options.get("pad_to_multiple_of"),
        max_length=options.get("max_length") if to_max_length else None,
        pad_token_id=None if pad_token_id is None else token_ids.one(pad_token_id),
    )


def _truncation(options: Mapping[str, Any]) -> tokenizer_pb.TruncationOptions | None:
    side = _side(options, "truncation_side")
    if not options.get("truncation"):
        return None
    if "max_length" not in options:
        raise WrongValue("truncation needs max_length.")
    return build(tokenizer_pb.TruncationOptions, max_length=options["max_length"], side=side)


def _side(options: Mapping[str, Any], keyword: str) -> "tokens_pb.PaddingSide | None":
    # A quoted type: an enumeration of protobuf 5 and 6 has no `|`.
    side = options.get(keyword)
    return None if side is None else choose(keyword, side, SIDES)


def _conversations(given: ChatMessages | Sequence[ChatMessages]) -> list[ChatMessages]:
    if not _is_list(given):
        raise WrongType(f"messages are a list such as {_MESSAGES}, not {given!r}.")
    conversations: Any = given if are_several_conversations(given) else [given]
    return list(conversations)


def _chat_message(message: Mapping[str, Any]) -> tokenizer_pb.ChatMessage:
    """Builds a message whose keys the template sees as they are: None is null, and not absent.

    Raises:
        InvalidArgument: it has another form.
    """
    if not isinstance(message, Mapping) or "role" not in message:
        raise WrongValue(f"A message is a mapping with a role, as in {_MESSAGES}, not {message!r}.")
    extra = {key: value for key, value in message.items() if key != "role"}
    content = extra.pop("content") if isinstance(extra.get("content"), str) else None
    return build(
        tokenizer_pb.ChatMessage,
        role=message["role"],
        content=content,
        extra_json=_json(extra or None),
    )


def _json_list(keyword: str, value: Any) -> str | None:
    if value is not None and not _is_list(value):
        raise WrongType(f"{keyword} is a list, each entry a mapping, not {value!r}.")
    return _json(value)


def _json(value: Any) -> str | None:
    try:
        return None if value is None else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise WrongType(f"A template is given what JSON can say, not {value!r}: {error}.") from None


def _hint(value: Any) -> str:
    """Returns what may have been meant in place of texts."""
    if isinstance(value, bytes | bytearray):
        return "; decode the bytes first"
    if isinstance(value, Sequence | Batch) or hasattr(value, "dtype"):
        return "; ids go to `decode` and to `model`"
    return ""


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
