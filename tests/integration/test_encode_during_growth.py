"""While tokens are added, every answer belongs to exactly one revision."""

import threading
import uuid

import pytest
from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import vocabulary_admin_service_pb2 as admin
from lockstep.v1 import vocabulary_pb2
from tokenizers import AddedToken, Tokenizer

from tests.integration.tokenizer_process import running_tokenizer
from tests.tokenizer_factory import KINDS, make_tokenizer_folder

NUM_REVISIONS = 40
NUM_READERS = 4
TOKENS = [f"<t{index}>" for index in range(NUM_REVISIONS)]
# Every second one is a plain token, which untrusted text has too.
SPECIAL = [index % 2 == 0 for index in range(NUM_REVISIONS)]
TEXT = "one " + " ".join(TOKENS)


@pytest.fixture(params=["byte_level", "unigram", "word_piece"])
def served(request, tmp_path):
    assert request.param in KINDS
    folder = make_tokenizer_folder(tmp_path / "tiny", request.param)
    with running_tokenizer(folder, tmp_path / "service") as stubs:
        yield stubs, Tokenizer.from_file(str(folder / "tokenizer.json"))


def encoding(**options):
    options = pb.EncodeOptions(add_special_tokens=False, return_tokens=True, **options)
    return pb.EncodeRequest(items=[pb.TextItem(text=TEXT)] * 3, options=options)


def ids_by_revision(library):
    """Returns what the library encodes the text to after each revision."""
    rows = [library.encode(TEXT, add_special_tokens=False).ids]
    for content, special in zip(TOKENS, SPECIAL, strict=True):
        library.add_tokens([AddedToken(content, special=special, normalized=not special)])
        rows.append(library.encode(TEXT, add_special_tokens=False).ids)
    return rows


def test_every_answer_is_that_of_the_revision_it_names(served):
    stubs, library = served
    done = threading.Event()
    seen = [[] for _ in range(NUM_READERS)]

    def read(responses):
        while not done.is_set():
            responses.append(stubs.tokenizer.Encode(encoding(parse_special_tokens=True)))

    readers = [threading.Thread(target=read, args=(responses,)) for responses in seen]
    for reader in readers:
        reader.start()
    for content, special in zip(TOKENS, SPECIAL, strict=True):
        token = vocabulary_pb2.AddedToken(content=content, special=special)
        response = stubs.admin.AddTokens(
            admin.AddTokensRequest(
                tokens=[admin.TokenToAdd(token=token)],
                idempotency_key=str(uuid.uuid4()),
                allow_text_changes=True,
            )
        )
        # Acknowledged is visible, to a call that begins now.
        after = stubs.tokenizer.Encode(encoding())
        assert after.vocabulary.revision >= response.vocabulary.revision
    done.set()
    for reader in readers:
        reader.join()
    expected = ids_by_revision(library)
    for responses in seen:
        revisions = [response.vocabulary.revision for response in responses]
        assert revisions == sorted(revisions)
        for response in responses:
            rows = [list(row.ids) for row in response.token_batch.sequences]
            assert rows == [expected[response.vocabulary.revision]] * 3
            sizes = [len(details.tokens) for details in response.details]
            assert sizes == [len(rows[0])] * 3
    assert len({r.vocabulary.revision for responses in seen for r in responses}) > 10
