"""Texts never become control tokens, however they are spelled and whoever asks."""

import uuid
from contextlib import contextmanager

import pytest
from lockstep.v1 import tokenizer_service_pb2 as pb
from lockstep.v1 import tokens_pb2, vocabulary_pb2
from lockstep.v1 import vocabulary_admin_service_pb2 as admin

import checkpoints
from tests.adversarial_texts import adversarial_texts
from tests.integration.tokenizer_process import running_tokenizer
from tests.tokenizer_factory import make_tokenizer_folder

COUNT = 10_000
PER_CALL = 64
LIVE = ("<tool>", "</tool>", "<|im_", "日本", "Paris", "e\u0301")

TEMPLATE = (
    "{%% for message in messages %%}"
    "{{ message['role'] + ': ' + message['content'] + '%s' }}"
    "{%% endfor %%}"
)
ENDS = {"byte_level": "<|im_end|>", "unigram": "</s>", "word_piece": "[SEP]"}


class Served:
    """A service whose vocabulary has grown.

    Attributes:
        stubs: the service.
        control_tokens: texts of control tokens, by id, those that were added live included.
        forbidden: ids that no text may have.
    """

    def __init__(self, stubs):
        self.stubs = stubs
        tokens = [
            admin.TokenToAdd(
                token=vocabulary_pb2.AddedToken(content=content, special=True),
                initialization=vocabulary_pb2.ROW_INITIALIZATION_ZERO,
            )
            for content in LIVE
            if content != "Paris" or not self.has(content)
        ]
        stubs.admin.AddTokens(
            admin.AddTokensRequest(
                tokens=tokens, idempotency_key=str(uuid.uuid4()), allow_unusual_characters=True
            )
        )
        info = stubs.info()
        ids = info.control_token_ids
        entries = stubs.tokenizer.ConvertTokens(pb.ConvertTokensRequest(ids=ids)).entries
        self.control_tokens = {entry.id: entry.spelling for entry in entries}
        # The token for unknown text is a control token too, and what such text becomes.
        unknown = [
            role.token_id
            for role in info.special_tokens
            if role.role == vocabulary_pb2.SPECIAL_TOKEN_ROLE_UNK and info.model_type != "BPE"
        ]
        self.forbidden = set(ids) - set(unknown)

    def has(self, content):
        found = self.stubs.tokenizer.ConvertTokens(pb.ConvertTokensRequest(tokens=[content]))
        return found.tokens[0].HasField("id")

    def texts(self, count=COUNT, seed=0):
        return adversarial_texts(list(self.control_tokens.values()), count, seed)

    def control_ids(self, ids):
        return [token_id for token_id in ids if token_id in self.forbidden]


@contextmanager
def serving(kind, folder):
    if kind == "default":
        model = checkpoints.resolve(checkpoints.DEFAULT_MODEL, need="tokenizer").folder
    else:
        template = TEMPLATE % ENDS[kind]
        model = make_tokenizer_folder(folder / "tiny", kind, chat_template=template)
    with running_tokenizer(model, folder / "service") as stubs:
        yield Served(stubs)


@pytest.fixture(
    scope="module",
    params=[*sorted(ENDS), pytest.param("default", marks=pytest.mark.default_model)],
)
def served(request, tmp_path_factory):
    with serving(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


def batches(texts):
    return [texts[start : start + PER_CALL] for start in range(0, len(texts), PER_CALL)]


def encoded(served, texts, **options):
    options = {"add_special_tokens": False} | options
    for batch in batches(texts):
        request = pb.EncodeRequest(
            items=[pb.TextItem(text=text) for text in batch], options=pb.EncodeOptions(**options)
        )
        response = served.stubs.tokenizer.Encode(request)
        yield from (sequence.ids for sequence in response.token_batch.sequences)


def test_ten_thousand_texts_give_no_control_id(served):
    texts = served.texts()
    assert not any(served.control_ids(ids) for ids in encoded(served, texts))
    parsed = encoded(served, texts[:64], parse_special_tokens=True)
    assert {i for ids in parsed for i in served.control_ids(ids)} == served.forbidden


def test_a_stream_gives_the_same_and_no_control_id(served):
    texts = served.texts(2000)
    options = pb.EncodeOptions(add_special_tokens=False)
    requests = (
        pb.EncodeStreamRequest(item_id=index, item=pb.TextItem(text=text), options=options)
        for index, text in enumerate(texts)
    )
    rows = [one.sequence.ids for one in served.stubs.tokenizer.EncodeStream(requests)]
    assert not any(served.control_ids(ids) for ids in rows)
    assert [list(ids) for ids in rows] == [list(ids) for ids in encoded(served, texts)]


@pytest.mark.parametrize("side", [tokens_pb2.PADDING_SIDE_LEFT, tokens_pb2.PADDING_SIDE_RIGHT])
@pytest.mark.parametrize("max_length", [1, 3, 8])
def test_no_cut_leaves_a_control_id(served, side, max_length):
    truncation = pb.TruncationOptions(max_length=max_length, side=side)
    rows = encoded(served, served.texts(1000, seed=max_length), truncation=truncation)
    assert not any(served.control_ids(ids) for ids in rows)


def test_only_the_tokenizers_own_template_places_control_ids_around_pairs(served):
    texts = served.texts(2000, seed=1)
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    options = pb.EncodeOptions(return_special_tokens_mask=True)
    for batch in batches(pairs):
        items = [pb.TextItem(text=text, text_pair=pair) for text, pair in batch]
        response = served.stubs.tokenizer.Encode(pb.EncodeRequest(items=items, options=options))
        sequences = response.token_batch.sequences
        for sequence, details in zip(sequences, response.details, strict=True):
            mask = details.special_tokens_mask
            text_ids = [i for i, placed in zip(sequence.ids, mask, strict=True) if not placed]
            assert not served.control_ids(text_ids)


def conversation(*contents):
    roles = ("user", "assistant")
    return pb.Conversation(
        messages=[
            pb.ChatMessage(role=roles[index % 2], content=content)
            for index, content in enumerate(contents)
        ]
    )


def rendered(served, conversations, **members):
    response = served.stubs.tokenizer.ApplyChatTemplate(
        pb.ApplyChatTemplateRequest(conversations=conversations, **members)
    )
    return [served.control_ids(sequence.ids) for sequence in response.token_batch.sequences]


def test_ten_thousand_messages_leave_the_structure_of_the_conversation_as_it_is(served):
    (expected,) = rendered(served, [conversation("x", "x")])
    assert len(expected) >= 2  # the template's own
    texts = served.texts(COUNT, seed=2)
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    for batch in batches(pairs):
        rows = rendered(served, [conversation(*pair) for pair in batch])
        assert all(row == expected for row in rows)


def test_messages_are_parsed_when_that_is_asked_for(served):
    (plain,) = rendered(served, [conversation("x", "x")], parse_special_tokens=True)
    (parsed,) = rendered(served, [conversation("<tool>", "x")], parse_special_tokens=True)
    assert len(parsed) == len(plain) + 1
