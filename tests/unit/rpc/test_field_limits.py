import importlib
import math
import pkgutil
import random
from contextlib import suppress

import lockstep.v1
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lockstep.v1 import (
    generation_pb2,
    model_service_pb2,
    scores_pb2,
    tokenizer_service_pb2,
    tokens_pb2,
)

from model_service.front.settings import ModelSettings
from rpc import field_limits
from rpc.errors import InvalidField
from rpc.field_limits import limits_of
from tests.random_messages import (
    corrupted,
    in_bytes,
    is_map,
    items_in_bytes,
    ordinary,
    places,
    wrapped,
)
from tokenizer_service.settings import TokenizerSettings

for module in pkgutil.iter_modules(lockstep.v1.__path__):
    importlib.import_module(f"lockstep.v1.{module.name}")

POOL = descriptor_pool.Default()
SERVICES = (
    "ModelService",
    "LogitsSessionService",
    "ModelInfoService",
    "ModelAdminService",
    "TokenizerService",
    "VocabularyAdminService",
)
REQUESTS = {
    method.input_type.full_name: method.input_type
    for service in SERVICES
    for method in POOL.FindServiceByName(f"lockstep.v1.{service}").methods
}
MEASURED = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
FLOATS = {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE}


PLACES = [place for request in REQUESTS.values() for place in places(request)]
COUNTED = [place for place in PLACES if place[-1].is_repeated]
SIZED = [place for place in PLACES if place[-1].type in MEASURED]
SHORT = [place for place in SIZED if limits_of(place[-1]).max_bytes <= 2**16]
FLOATING = [place for place in PLACES if place[-1].type in FLOATS]


def ids(place):
    return f"{place[0].containing_type.name}.{'.'.join(field.name for field in place)}"


def refused(place, content):
    request = place[0].containing_type
    with pytest.raises(InvalidField) as caught:
        field_limits.check(wrapped(place, content), request)
    (violation,) = caught.value.violations
    return violation


def dotted(place):
    named = [field for field in place if not limits_of(field).wrapped]
    return ".".join(f"{field.name}[0]" if field.is_repeated else field.name for field in named)


def test_every_field_of_a_request_that_can_be_large_has_a_limit():
    missing = [ids(place) for place in COUNTED if not limits_of(place[-1]).max_items]
    missing += [ids(place) for place in SIZED if not limits_of(place[-1]).max_bytes]
    assert not missing


@pytest.mark.parametrize(
    ("settings", "setting", "message", "field"),
    [
        (TokenizerSettings, "max_items", tokenizer_service_pb2.EncodeRequest, "items"),
        (TokenizerSettings, "max_items", tokens_pb2.TokenBatch, "sequences"),
        (TokenizerSettings, "max_text_bytes", tokenizer_service_pb2.TextItem, "text"),
        (TokenizerSettings, "max_text_bytes", tokenizer_service_pb2.ChatMessage, "content"),
        (ModelSettings, "max_sequences_per_call", tokens_pb2.TokenBatch, "sequences"),
        (ModelSettings, "max_sequences_per_call", model_service_pb2.GenerateRequest, "seeds"),
        (ModelSettings, "max_context_tokens", tokens_pb2.TokenSequence, "ids"),
        (ModelSettings, "max_selected_tokens", scores_pb2.TokenIdList, "ids"),
    ],
)
def test_no_setting_allows_more_than_the_schema(settings, setting, message, field):
    constraints = settings.model_fields[setting].metadata
    (most,) = [constraint.le for constraint in constraints if hasattr(constraint, "le")]
    limits = limits_of(message.DESCRIPTOR.fields_by_name[field])
    assert most <= (limits.max_items or limits.max_bytes)


def test_no_message_of_a_request_holds_its_own_kind():
    for place in PLACES:
        kinds = [field.message_type for field in place if field.message_type is not None]
        assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("place", COUNTED, ids=ids)
def test_one_item_more_than_the_limit_is_refused_by_name(place):
    limit = limits_of(place[-1]).max_items
    request = GetMessageClass(place[0].containing_type)
    within = wrapped(place, items_in_bytes(place[-1], limit))
    field_limits.check(within, request.DESCRIPTOR)
    request.FromString(within)
    violation = refused(place, items_in_bytes(place[-1], limit + 1))
    assert violation.field == dotted(place).removesuffix("[0]")
    assert f"the limit is {limit}" in violation.description


@pytest.mark.parametrize("place", SHORT, ids=ids)
def test_one_byte_more_than_the_limit_is_refused_by_name(place):
    limit = limits_of(place[-1]).max_bytes
    violation = refused(place, in_bytes(place[-1], b"a" * (limit + 1)))
    assert violation.field == dotted(place)
    assert violation.description == f"has {limit + 1} bytes; the limit is {limit}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", FLOATING, ids=ids)
def test_a_float_is_finite_in_every_field(place, value):
    parent = GetMessageClass(place[-1].containing_type)()
    setattr(parent, place[-1].name, value)
    content = parent.SerializeToString()
    if value == -math.inf and limits_of(place[-1]).minus_infinity:
        field_limits.check(wrapped(place, content), place[0].containing_type)
    else:
        violation = refused(place, content)
        assert violation.field == dotted(place)
        assert violation.description.startswith("must be finite")


def test_numbers_that_are_not_packed_are_counted_too():
    keys = generation_pb2.SynthIdWatermark.DESCRIPTOR.fields_by_name["keys"]
    one = bytes([keys.number << 3, 1])
    field_limits.check(one * 64, keys.containing_type)
    with pytest.raises(InvalidField, match="keys: has more than 64 items"):
        field_limits.check(one * 65, keys.containing_type)


def test_long_numbers_count_once():
    message = generation_pb2.SynthIdWatermark(keys=[2**63 - 1] * 64)
    field_limits.check(message.SerializeToString(), message.DESCRIPTOR)
    message.keys.append(1)
    with pytest.raises(InvalidField, match="keys: has 65 items"):
        field_limits.check(message.SerializeToString(), message.DESCRIPTOR)


def test_pieces_of_a_message_count_together():
    half = generation_pb2.GenerationConfig(stop_strings=["a"] * 5)
    request = model_service_pb2.GenerateRequest(generation_config=half).SerializeToString()
    assert (
        len(
            model_service_pb2.GenerateRequest.FromString(2 * request).generation_config.stop_strings
        )
        == 10
    )
    with pytest.raises(InvalidField, match="stop_strings: has more than 8"):
        field_limits.check(2 * request, model_service_pb2.GenerateRequest.DESCRIPTOR)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(b"\x30\x01", id="a number again and again"),
        pytest.param(b"\xf8\x07\x01", id="numbers that the schema does not know"),
        pytest.param(b"\x12\x00", id="a message in pieces"),
        pytest.param(b"\x12\x02\x0a\x00", id="messages that it does not know, inside of one"),
    ],
)
def test_a_message_has_a_number_of_fields_whatever_they_are(fields):
    request = model_service_pb2.GenerateRequest.DESCRIPTOR
    number = field_limits.MAX_FIELDS
    with pytest.raises(InvalidField, match=f"the limit of {number} fields in a message"):
        field_limits.check(fields * (number + 1), request)


def test_the_fields_of_all_messages_in_a_message_count_together():
    conversation = tokenizer_service_pb2.Conversation(
        messages=[tokenizer_service_pb2.ChatMessage(role="user", content="a")] * 4000
    )
    request = tokenizer_service_pb2.ApplyChatTemplateRequest(conversations=[conversation] * 3)
    with pytest.raises(InvalidField) as caught:
        field_limits.check(request.SerializeToString(), request.DESCRIPTOR)
    assert caught.value.violations[0].field.startswith("conversations[2].messages[")


seeds = st.integers(0, 2**32 - 1).map(random.Random)


def drawn(rng):
    """Draws a request of any method."""
    return ordinary(rng, REQUESTS[rng.choice(sorted(REQUESTS))])


@settings(max_examples=500)
@given(seeds)
def test_a_message_within_its_limits_passes(rng):
    message = drawn(rng)
    field_limits.check(message.SerializeToString(), message.DESCRIPTOR)


def over_limit(message):
    """Returns whether anything in a parsed message is more than its limit."""
    for field, value in message.ListFields():
        own = limits_of(field)
        if field.is_repeated and len(value) > own.max_items:
            return True
        listed = value if field.is_repeated and not is_map(field) else [value]
        if field.type in MEASURED:
            sizes = (len(x.encode() if isinstance(x, str) else x) for x in listed)
            if max(sizes, default=0) > own.max_bytes:
                return True
        if field.type in FLOATS and not all(map(math.isfinite, listed)) and not own.minus_infinity:
            return True
        if is_map(field):
            if any(isinstance(x, float) and not math.isfinite(x) for x in value.values()):
                return True
        elif field.message_type is not None and any(map(over_limit, listed)):
            return True
    return False


@settings(max_examples=1000)
@given(seeds)
def test_what_passes_is_within_every_limit_once_it_is_parsed(rng):
    message = drawn(rng)
    data = corrupted(rng, message.SerializeToString())
    try:
        field_limits.check(data, message.DESCRIPTOR)
        parsed = type(message).FromString(data)
    except (DecodeError, InvalidField):
        return
    assert not over_limit(parsed)


@settings(max_examples=1000)
@given(seeds)
def test_what_the_parser_reads_is_not_called_malformed(rng):
    message = drawn(rng)
    data = corrupted(rng, message.SerializeToString())
    try:
        type(message).FromString(data)
    except DecodeError:
        return
    assume(not any(byte & 7 in (3, 4) for byte in data))  # it reads groups; no schema has any
    with suppress(InvalidField):
        field_limits.check(data, message.DESCRIPTOR)
