"""Files of tokenizers of every age and shape, read by us and by `AutoTokenizer`."""

import asyncio
import io
import itertools
import json
import zipfile

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from tests.tokenizer_factory import CHAT_TEMPLATE, KINDS, WORD_TOKENS, make_tokenizer_folder
from tokenizer_service.chat.chat import ChatRequest, ChatTemplates
from tokenizer_service.chat.template_renderer import RenderLimits, RenderRequest, TemplateRenderer
from tokenizer_service.text import artifact, loading, tokenizer_files
from tokenizer_service.text.encoding import EncodeOptions, Text
from tokenizer_service.text.incremental import DecodeOptions
from tokenizer_service.text.tokenizer_files import TokenizerFilesError
from tokenizer_service.worker_pool import PoolLimits, WorkerPool
from vocabulary import AddedToken, Change, NewToken

TEXTS = (
    "The capital of France is Paris, isn't it?",
    "Grüße aus München, 東京 🙂!  two  spaces \n",
    "<|im_start|>a</s>[SEP]<s>",
    "",
)
TRUSTED = EncodeOptions(parse_special_tokens=True)

MARK = "<|t|>"
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
MARKED_TEXTS = ("a <|t|>\n b", "a<|t|>b", "<|t|>", "x  <|t|>  <|t|> y", "A<|T|> <|t|>.")
ALL_FLAGS = [
    {"special": special, **dict(zip(FLAGS, flags, strict=True))}
    for special in (False, True)
    for flags in itertools.product((False, True), repeat=len(FLAGS))
]


def word_level() -> Tokenizer:
    words = [*WORD_TOKENS, "The", "capital", "of", "France"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))


def written(make, folder):
    make().save(str(folder / "tokenizer.json"))
    return json.loads((folder / "tokenizer.json").read_text("utf-8"))


def rewrite(folder, members, **config):
    """Makes a folder hold this `tokenizer.json`, and more in its configuration."""
    (folder / "tokenizer.json").write_text(json.dumps(members), "utf-8")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def ours(folder):
    return loading.load(tokenizer_files.read(folder), "tiny")


def theirs(folder):
    return AutoTokenizer.from_pretrained(folder)


def ids(tokenizer, text, options=TRUSTED):
    (row,) = tokenizer.encode([Text(text)], options)
    return list(row.ids)


def check_equal(folder):
    mine, other = ours(folder), theirs(folder)
    assert mine.size == len(other)
    for text in TEXTS:
        row = other(text).input_ids
        assert ids(mine, text) == row
        for skip in (False, True):
            expected = other.decode(row, skip_special_tokens=skip)
            assert mine.decode(row, DecodeOptions(skip, None)) == expected


def without(*names):
    def change(members):
        for name in names:
            members["model"].pop(name, None)

    return change


def merges_as_strings(members):
    if "merges" in members["model"]:
        members["model"]["merges"] = [" ".join(pair) for pair in members["model"]["merges"]]


def without_optional_members(members):
    for name in ("version", "truncation", "padding"):
        del members[name]


def decoder_without_type(members):
    if members["decoder"] and members["decoder"]["type"] == "WordPiece":
        del members["decoder"]["type"]


SHAPES = {
    "no type": without("type"),
    "merges as strings": merges_as_strings,
    "no type, no members with a default": without(
        *("type", "dropout", "fuse_unk", "byte_fallback", "ignore_merges", "end_of_word_suffix")
    ),
    "no optional members": without_optional_members,
    "decoder without type": decoder_without_type,
}
MAKERS = {kind: make for kind, (make, _) in KINDS.items()} | {"word_level": word_level}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_of_any_age_has_the_ids_of_the_library(tmp_path, kind, shape):
    folder = make_tokenizer_folder(tmp_path / "tiny", kind if kind in KINDS else "word_piece")
    members = written(MAKERS[kind], folder)
    SHAPES[shape](members)
    check_equal(rewrite(folder, members))


def test_the_file_that_gpt_2_came_with_is_read(tmp_path):
    folder = make_tokenizer_folder(tmp_path / "tiny")
    members = written(MAKERS["byte_level"], folder)
    merges_as_strings(members)
    model = members["model"]
    members["model"] = {
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "vocab": model["vocab"],
        "merges": model["merges"],
    }
    members["post_processor"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": False,
    }
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    check_equal(rewrite(folder, members))


@pytest.fixture(scope="module")
def lower_casing(tmp_path_factory):
    """Makes folders whose added token has these flags in each of the two files."""
    folder = make_tokenizer_folder(tmp_path_factory.mktemp("flags") / "tiny")
    members = written(MAKERS["byte_level"], folder)
    members["normalizer"] = {"type": "Lowercase"}  # what `normalized` is about

    def make(in_tokenizer, in_config):
        entry = {"id": 400, "content": MARK, **in_tokenizer}
        changed = members | {"added_tokens": [*members["added_tokens"], entry]}
        declared = {"400": {"content": MARK, **in_config}}
        return rewrite(folder, changed, added_tokens_decoder=declared)

    return make


@pytest.mark.parametrize(
    "in_tokenizer", [ALL_FLAGS[0], ALL_FLAGS[-1], pytest.param(None, marks=pytest.mark.full)]
)
def test_flags_of_the_configuration_win(lower_casing, in_tokenizer):
    for given in [in_tokenizer] if in_tokenizer else ALL_FLAGS:
        for declared in ALL_FLAGS:
            folder = lower_casing(given, declared)
            mine, other = ours(folder), theirs(folder)
            for text in MARKED_TEXTS:
                row = other(text).input_ids
                assert ids(mine, text) == row, (given, declared, text)
                if not given["special"] and not declared["special"]:  # untrusted texts have it
                    assert ids(mine, text, EncodeOptions()) == row, (given, declared, text)
                expected = other.decode(row, skip_special_tokens=True)
                assert mine.decode(row, DecodeOptions(True, None)) == expected


@pytest.mark.parametrize("declared", [{}, {"rstrip": True}, {"special": True, "lstrip": True}])
def test_flags_that_are_left_out_have_the_defaults_of_the_library(lower_casing, declared):
    folder = lower_casing(ALL_FLAGS[-1], declared)
    mine, other = ours(folder), theirs(folder)
    for text in MARKED_TEXTS:
        assert ids(mine, text) == other(text).input_ids


@pytest.mark.parametrize("eos", [MARK, {"content": MARK, "lstrip": True, "__type": "AddedToken"}])
def test_a_role_leaves_the_flags_of_its_token_as_they_are(tmp_path, eos):
    folder = make_tokenizer_folder(tmp_path / "tiny", eos_token=eos)
    members = written(MAKERS["byte_level"], folder)
    flags = {"single_word": False, "lstrip": False, "rstrip": True, "normalized": True}
    members["added_tokens"].append({"id": 400, "content": MARK, "special": False, **flags})
    rewrite(folder, members)
    for text in MARKED_TEXTS:
        assert ids(ours(folder), text) == theirs(folder)(text).input_ids


def test_a_conversation_has_the_flags_of_the_configuration(lower_casing):
    messages = [{"role": "user", "content": "a <|t|>\n b<|t|>c"}]

    async def applied(folder):
        templates = {"default": CHAT_TEMPLATE}
        pool = WorkerPool(PoolLimits(threads=1, max_pending=8), observe_wait=lambda _: None)
        renderer = TemplateRenderer(templates, workers=1, limits=RenderLimits(time_s=30))
        await renderer.start()
        request = RenderRequest("", [messages], add_generation_prompt=True)
        chat = ChatTemplates(templates, renderer, pool)
        try:
            for declared in ALL_FLAGS:
                folder = lower_casing(ALL_FLAGS[0], declared)
                trust = declared["special"]
                row = await chat.apply(
                    ours(folder),
                    ChatRequest(request, trust),
                    lambda rendered: list(rendered.rows[0].ids),
                    request_bytes=1000,
                )
                expected = theirs(folder).apply_chat_template(
                    messages, add_generation_prompt=True, return_dict=False
                )
                assert row == expected, declared
        finally:
            await renderer.close()
            pool.close()

    asyncio.run(applied(lower_casing))


@pytest.mark.parametrize("decoder", [None, {}])
def test_special_tokens_map_counts_only_where_no_added_tokens_are_declared(tmp_path, decoder):
    config = {} if decoder is None else {"added_tokens_decoder": decoder}
    folder = make_tokenizer_folder(tmp_path / "tiny", **config)
    roles = {"eos_token": "<|im_start|>", "pad_token": "<|im_end|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(roles))
    mine, other = ours(folder), theirs(folder)
    assert (mine.roles["eos"], mine.roles.get("pad")) == (other.eos_token_id, other.pad_token_id)


@pytest.mark.parametrize("revision", [0, 1])
def test_the_archive_encodes_as_the_tokenizer_that_is_served(lower_casing, tmp_path, revision):
    files = tokenizer_files.read(lower_casing(ALL_FLAGS[0], ALL_FLAGS[12]))
    served = loading.load(files, "tiny")
    if revision:
        served = served.grown(Change((NewToken(401, AddedToken("<new>")),)))
    zipfile.ZipFile(io.BytesIO(artifact.build(served, files))).extractall(tmp_path)
    for text in MARKED_TEXTS:
        assert ids(served, text) == theirs(tmp_path)(text).input_ids == ids(ours(tmp_path), text)


def test_an_added_token_whose_id_is_not_the_librarys_is_refused(tmp_path):
    folder = make_tokenizer_folder(tmp_path / "tiny")
    members = written(MAKERS["byte_level"], folder)
    members["added_tokens"].append({"id": 405, "content": MARK, **ALL_FLAGS[0]})
    with pytest.raises(
        TokenizerFilesError, match="id 405, where the tokenizers library counts 400"
    ):
        ours(rewrite(folder, members))
