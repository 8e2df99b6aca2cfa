import json

import pytest

from tests.tokenizer_factory import make_tokenizer_folder
from tokenizer_service.text import artifact, loading, tokenizer_files
from tokenizer_service.text.tokenizer_files import TokenizerFilesError


def read(tmp_path, kind="byte_level", **config):
    return tokenizer_files.read(make_tokenizer_folder(tmp_path / "tiny", kind, **config))


def test_a_special_token_is_a_string_or_the_members_of_an_added_token(tmp_path):
    files = read(
        tmp_path,
        eos_token={"content": "<|im_end|>", "lstrip": True, "__type": "AddedToken"},
        pad_token=None,
    )
    assert files.roles["eos"].content == "<|im_end|>"
    assert files.roles["eos"].lstrip
    assert "pad" not in files.roles


@pytest.mark.parametrize(
    ("given", "length"),
    [(1024, 1024), (1024.0, 1024), (10**30, None), (1e30, None), (None, None), ("many", None)],
)
def test_a_length_that_nobody_knows_is_unknown(tmp_path, given, length):
    assert read(tmp_path, model_max_length=given).model_max_length == length


@pytest.mark.parametrize(
    ("config", "templates"),
    [
        ("one", {"default": "one"}),
        (
            [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}],
            {"default": "a", "rag": "b"},
        ),
        ({"default": "a"}, {"default": "a"}),
        (None, {}),
    ],
    ids=["string", "list", "object", "none"],
)
def test_chat_templates_are_read_from_the_configuration(tmp_path, config, templates):
    assert read(tmp_path, chat_template=config).chat_templates == templates


def test_template_files_win_over_the_configuration(tmp_path):
    folder = make_tokenizer_folder(tmp_path / "tiny", chat_template="from the configuration")
    (folder / "chat_template.jinja").write_text("from the file")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert tokenizer_files.read(folder).chat_templates == {
        "default": "from the file",
        "tool_use": "tools",
    }


def test_spaces_are_cleaned_up_only_where_transformers_does(tmp_path):
    bpe = loading.load(read(tmp_path / "a", clean_up_tokenization_spaces=True), "tiny")
    words = loading.load(read(tmp_path / "b", "word_piece"), "tiny")
    assert (bpe.cleans_up_spaces, words.cleans_up_spaces) == (False, True)


def test_padding_and_truncation_of_the_file_are_nobodys_settings(tmp_path):
    folder = make_tokenizer_folder(tmp_path / "tiny")
    members = json.loads((folder / "tokenizer.json").read_text())
    members["truncation"] = {
        "max_length": 1,
        "strategy": "LongestFirst",
        "stride": 0,
        "direction": "Right",
    }
    (folder / "tokenizer.json").write_text(json.dumps(members))
    tokenizer = loading.load(tokenizer_files.read(folder), "tiny")
    assert tokenizer.trusting.whole.truncation is None
    assert tokenizer.plain.whole.truncation is None


def test_tokens_declared_as_special_are_control_tokens(tmp_path):
    files = read(tmp_path, additional_special_tokens=["b"], mask_token="a")
    tokenizer = loading.load(files, "tiny")
    assert {tokenizer.id_of("b"), tokenizer.id_of("a")} <= tokenizer.control_ids


@pytest.mark.parametrize(
    "config",
    [
        {"pad_token": "<pad>"},
        {"additional_special_tokens": ["<none>"]},
        {"added_tokens_decoder": {"5": {"content": "<|im_end|>", "special": True}}},
        {"added_tokens_decoder": {"400": {"content": "<new>", "special": False}}},
    ],
)
def test_tokens_that_tokenizer_json_does_not_have_are_refused(tmp_path, config):
    with pytest.raises(TokenizerFilesError, match="save_pretrained"):
        loading.load(read(tmp_path, **config), "tiny")


@pytest.mark.parametrize(
    "declared",
    [
        ["a"],
        {"first": {"content": "a"}},
        {"5": "a"},
        {"5": {}},
        {"5": None},
        "5",
        {"5": {"content": 5}},
    ],
)
def test_a_list_of_added_tokens_that_cannot_be_read_is_refused(tmp_path, declared):
    with pytest.raises(TokenizerFilesError, match=r"tokenizer_config\.json"):
        loading.load(read(tmp_path, added_tokens_decoder=declared), "tiny")


@pytest.mark.parametrize("content", ["[]", "{", "\ufeff"])
def test_a_configuration_that_is_no_object_is_refused(tmp_path, content):
    folder = make_tokenizer_folder(tmp_path / "tiny")
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(TokenizerFilesError, match="tokenizer_config"):
        tokenizer_files.read(folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"model": {"type": "Exotic"}}', '{"model": {"type": "BPE"}}']
)
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path, content):
    folder = make_tokenizer_folder(tmp_path / "tiny")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerFilesError, match=r"tokenizer\.json"):
        loading.load(tokenizer_files.read(folder), "tiny")


def test_the_archive_of_equal_revisions_has_equal_bytes(tmp_path):
    files = read(tmp_path)
    tokenizer = loading.load(files, "tiny")
    assert artifact.build(tokenizer, files) == artifact.build(tokenizer, files)
