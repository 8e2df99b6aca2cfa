"""Fingerprints of every kind of change, as callers ask for it and as followers receive it.

What is read off the wire is hashed, so a default that is read in another way breaks every
chain there is. These fingerprints never change.
"""

from datetime import UTC, datetime

import pytest
from google.protobuf import text_format
from lockstep.v1 import vocabulary_admin_service_pb2, vocabulary_pb2

from tokenizer_service.rpcs.additions import read_additions
from vocabulary import (
    AddedToken,
    Change,
    Link,
    MarkedToken,
    NewToken,
    Reference,
    SpecialToken,
    fingerprint,
)
from wire.violations import Violations
from wire.vocabulary import read_change, vocabulary_change

PARENT = "0" * 64
TENSOR = r'dtype: DATA_TYPE_FLOAT32 shape: 2 data: "\000\000\200?\000\000 \300"'
OTHER_TENSOR = r'dtype: DATA_TYPE_FLOAT32 shape: 2 data: "\000\000\000\000\000\340\177G"'

# What is said of a token beside its content, and the fingerprint of its addition as id 10.
KINDS = {
    "nothing": ("", "e2abb61d4a6a87e78ff2d9f83aaff029dcf1124843c24359686a6f7efcbdf910"),
    "special": (
        "token { special: true }",
        "b90d550040561f43bfb313d84689515eef4c0fc144b67de5553c9387510ae8ee",
    ),
    "normalized": (
        "token { normalized: true }",
        "e2abb61d4a6a87e78ff2d9f83aaff029dcf1124843c24359686a6f7efcbdf910",
    ),
    "not normalized": (
        "token { normalized: false }",
        "d2a3f08656741858137f8945d69b1236f5f1e81b09de5c25f84a71013777e42c",
    ),
    "special and normalized": (
        "token { special: true normalized: true }",
        "638fabf9a056276ffad3c0deda6d050d8ed3318e65f0f12dab7cb12ff1ccb2ee",
    ),
    "a single word": (
        "token { single_word: true }",
        "e4b39c63a3eb2b74cc6dbc7d2f0b39192ce9b7611db2b0f68f811c05a220e920",
    ),
    "white space to the left": (
        "token { lstrip: true }",
        "1e6f13f83c9b6599c9342fbde32f1d918f77ee6dd0160e67179296243280134e",
    ),
    "white space to the right": (
        "token { rstrip: true }",
        "3c230cb34b228d2ce8bf9d077a580bfed49580808fb2c2fe944b904665a8e1b8",
    ),
    "generable": (
        "generable: true",
        "58520ce6540d3ed255750c518637a77db5ad190180d038c031812bf89fb709dd",
    ),
    "mean of pieces": (
        "initialization: ROW_INITIALIZATION_MEAN_OF_PIECES",
        "e2abb61d4a6a87e78ff2d9f83aaff029dcf1124843c24359686a6f7efcbdf910",
    ),
    "mean": (
        "initialization: ROW_INITIALIZATION_MEAN",
        "07f66173671f9a318648efba28bae243cf87124e8c649aad00d9c771792d2974",
    ),
    "zero": (
        "initialization: ROW_INITIALIZATION_ZERO",
        "d6b97f4d4aaa8b58489b23433d1e3007573f1c9be0a922dfa3b5a486af750f5c",
    ),
    "copy": (
        "initialization: ROW_INITIALIZATION_COPY copy_token_id: 0",
        "94276cde8a91e6f9790a2e1b9a6880f8f7022cdfcafe98e5ea1b9f7852d17a42",
    ),
    "values": (
        f"initialization: ROW_INITIALIZATION_VALUES generable: true input_values {{ {TENSOR} }}",
        "7157a120f8f660a1b88bf4cdf067b14829aaf2a3465c1fec8a7ae7b30d4c5de7",
    ),
    "values of both matrices": (
        "initialization: ROW_INITIALIZATION_VALUES generable: true "
        f"input_values {{ {TENSOR} }} output_values {{ {OTHER_TENSOR} }}",
        "ee759f388f15a6898b354ba2752d7f73a18acc429c1ee80bd621a890583219b6",
    ),
}

# Every role in one change, given to ids from 0 on.
ROLES = ["BOS", "EOS", "PAD", "UNK", "SEP", "CLS", "MASK"]
FINGERPRINT_OF_ROLES = "23dcdd5798efb023e2b24e85ebd6debcd6aaf8959fcf8a5a92e75d3a5f76deef"


def asked_for(fields: str) -> Change:
    """Reads what a caller asks for, and numbers the token as `AddTokens` does."""
    message = vocabulary_admin_service_pb2.TokenToAdd()
    text_format.Parse(fields, message)
    message.token.content = "<tool>"
    (asked,) = read_additions([message], Violations())
    new = NewToken(
        id=10,
        token=asked.token,
        previous_ids=(3, 4),
        generable=bool(asked.generable),
        initialization=asked.initialization,
        copy_token_id=asked.copy_token_id,
        input_values=asked.input_values,
        output_values=asked.output_values,
    )
    roles = tuple(SpecialToken(role, 10) for role in asked.roles)
    return Change(tokens=(new,), special_tokens=roles)


def received(fields: str) -> Change:
    """Reads the same token as a follower receives it."""
    message = vocabulary_pb2.VocabularyChange()
    token = message.tokens.add()
    text_format.Parse(fields, token)
    token.id, token.token.content = 10, "<tool>"
    token.previous_ids.extend([3, 4])
    return read_change(message).change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [asked_for, received])
def test_a_kind_of_addition_keeps_its_fingerprint(kind, read):
    fields, expected = KINDS[kind]
    assert fingerprint(PARENT, read(fields)) == expected


def test_roles_keep_their_fingerprint():
    message = vocabulary_pb2.VocabularyChange()
    for token_id, role in enumerate(ROLES):
        message.special_tokens.add(role=f"SPECIAL_TOKEN_ROLE_{role}", token_id=token_id)
    assert fingerprint(PARENT, read_change(message).change) == FINGERPRINT_OF_ROLES


def test_marked_tokens_are_followed_with_the_fingerprint_that_they_were_made_with():
    marked = MarkedToken(3, AddedToken("A", special=True, lstrip=True))
    change = Change(marked_tokens=(marked,))
    link = Link(PARENT, change, Reference("tiny", 1, fingerprint(PARENT, change), 10))
    message = vocabulary_change(link, datetime(2026, 1, 1, tzinfo=UTC), ())
    assert read_change(message) == link


@pytest.mark.parametrize("role", ROLES)
def test_a_token_is_added_with_the_role_that_it_is_followed_with(role):
    fields = f"token {{ special: true }} role: SPECIAL_TOKEN_ROLE_{role}"
    (asked,) = asked_for(fields).special_tokens
    message = vocabulary_pb2.VocabularyChange()
    message.special_tokens.add(role=f"SPECIAL_TOKEN_ROLE_{role}", token_id=10)
    assert read_change(message).change.special_tokens == (asked,)
