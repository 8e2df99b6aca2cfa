import dataclasses
import hashlib
import json

import pytest

from vocabulary import canonical, chain
from vocabulary.revision import (
    AddedToken,
    Change,
    Link,
    MarkedToken,
    NewToken,
    Reference,
    SpecialToken,
)

BASE = Reference("tiny", 0, "0" * 64, 10)

CHANGE = Change(
    tokens=(
        NewToken(
            id=10,
            token=AddedToken("<tool>", special=True),
            previous_ids=(3, 4),
            generable=True,
            initialization="values",
            input_values=b"\x00\x00\x80\x3f",
        ),
    ),
    special_tokens=(SpecialToken("pad", 10),),
)

MARKED = MarkedToken(3, AddedToken("A", special=True))

# The whole format in one line: who writes another implementation starts here.
ENCODED = (
    b'{"special_tokens":[{"role":"pad","token_id":10}],"tokens":[{"copy_token_id":null,'
    b'"generable":true,"id":10,"initialization":"values","input_values":"AACAPw==",'
    b'"output_values":"","previous_ids":[3,4],"token":{"content":"<tool>","lstrip":false,'
    b'"normalized":false,"rstrip":false,"single_word":false,"special":true}}]}'
)


def links(*changes):
    made, newest = [], BASE
    for change in changes:
        after = chain.follow(newest, change)
        made.append(Link(newest.fingerprint, change, after))
        newest = after
    return made


def plain(token_id, content="x"):
    return Change(tokens=(NewToken(id=token_id, token=AddedToken(content)),))


def test_a_change_has_exactly_these_bytes():
    assert canonical.encode_change(CHANGE) == ENCODED


def test_marked_tokens_are_part_of_a_change_that_has_some():
    change = dataclasses.replace(CHANGE, marked_tokens=(MARKED,))
    assert canonical.encode_change(change) == (
        b'{"marked_tokens":[{"id":3,"token":{"content":"A","lstrip":false,"normalized":false,'
        b'"rstrip":false,"single_word":false,"special":true}}],' + ENCODED[1:]
    )
    assert canonical.decode_change(canonical.encode_change(change)) == change


def test_a_marked_token_was_there_before():
    for token_id in (-1, 10):
        marked = dataclasses.replace(MARKED, id=token_id)
        change = dataclasses.replace(CHANGE, marked_tokens=(marked,))
        with pytest.raises(chain.BrokenChainError, match="marks an id"):
            chain.follow(BASE, change)


def test_a_fingerprint_is_the_hash_of_parent_and_change():
    data = b"lockstep.vocabulary.change.v1\n" + b"0" * 64 + b"\n" + ENCODED
    assert chain.fingerprint(BASE.fingerprint, CHANGE) == hashlib.sha256(data).hexdigest()
    assert chain.fingerprint(BASE.fingerprint, CHANGE) == (
        "fd32b2f7707f67f6db180277ee76ca0a644a4a4e93170d60535c16ded98063ee"
    )


def test_a_change_survives_encoding():
    assert canonical.decode_change(canonical.encode_change(CHANGE)) == CHANGE


@pytest.mark.parametrize("data", [b"{}", b"[]", b"\xff", b'{"tokens":[{}],"special_tokens":[]}'])
def test_bytes_that_are_no_change_are_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011  # JSON's own errors are among them
        canonical.decode_change(data)


def test_formatting_and_padding_do_not_change_the_base_fingerprint():
    one = {"version": "1.0", "padding": None, "model": {"vocab": {"ä": 0}}}
    two = {"model": {"vocab": {"ä": 0}}, "truncation": {"max_length": 5}, "version": "1.0"}
    assert chain.base_fingerprint(json.dumps(one).encode()) == chain.base_fingerprint(
        json.dumps(two, indent=2, ensure_ascii=False).encode()
    )


def test_another_vocabulary_has_another_base_fingerprint():
    one, two = ({"model": {"vocab": {"a": token_id}}} for token_id in (0, 1))
    assert chain.base_fingerprint(json.dumps(one).encode()) != chain.base_fingerprint(
        json.dumps(two).encode()
    )


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"a": "\\ud800"}', b'{"a": NaN}'])
def test_a_base_that_is_no_json_object_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011  # JSON's own errors are among them
        chain.base_fingerprint(data)


def test_a_chain_verifies_to_its_newest_state():
    made = links(CHANGE, plain(11))
    assert chain.verify(BASE, made) == made[-1].vocabulary
    assert made[-1].vocabulary.revision == 2
    assert made[-1].vocabulary.size == 12


@pytest.mark.parametrize(
    "tamper",
    [
        lambda link: dataclasses.replace(link, parent_fingerprint="1" * 64),
        lambda link: dataclasses.replace(link, change=plain(11, "y")),
        lambda link: dataclasses.replace(
            link, vocabulary=dataclasses.replace(link.vocabulary, size=13)
        ),
        lambda link: dataclasses.replace(
            link, vocabulary=dataclasses.replace(link.vocabulary, revision=3)
        ),
    ],
    ids=["parent", "change", "size", "revision"],
)
def test_a_tampered_link_breaks_the_chain_at_its_revision(tamper):
    first, second, third = links(CHANGE, plain(11), plain(12))
    with pytest.raises(chain.BrokenChainError) as caught:
        chain.verify(BASE, [first, tamper(second), third])
    assert caught.value.revision == 2


def test_ids_that_leave_a_gap_are_refused():
    with pytest.raises(chain.BrokenChainError, match="continue from 10"):
        chain.follow(BASE, plain(11))


def test_a_role_for_an_id_that_does_not_exist_is_refused():
    with pytest.raises(chain.BrokenChainError, match="role"):
        chain.follow(BASE, Change(special_tokens=(SpecialToken("eos", 10),)))
