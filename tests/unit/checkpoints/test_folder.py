import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest

from checkpoints import CheckpointError, resolve


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("need", ["tokenizer", "model"])
def test_a_plain_folder_is_taken_as_it_is(model_folder: Path, need):
    checkpoint = resolve(str(model_folder), need=need)
    assert (checkpoint.name, checkpoint.folder) == ("tiny-model", model_folder)


@pytest.mark.parametrize("need", ["tokenizer", "model"])
def test_an_absurd_id_is_refused_whoever_needs_the_tokenizer(model_folder: Path, need):
    edit(model_folder / "tokenizer.json", model={"vocab": {"a": 0, "b": 2**31}})
    with pytest.raises(CheckpointError, match=r"tokenizer\.json .* the id 2147483648"):
        resolve(str(model_folder), need=need)


def test_a_tokenizer_needs_no_weights(model_folder: Path):
    (model_folder / "model.safetensors").unlink()
    (model_folder / "config.json").unlink()
    assert resolve(str(model_folder), need="tokenizer").folder == model_folder


def test_a_model_needs_no_tokenizer(model_folder: Path):
    (model_folder / "tokenizer.json").unlink()
    assert resolve(str(model_folder), need="model").folder == model_folder


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_is_refused_unread_with_the_way_out(model_folder: Path, tmp_path: Path, name):
    trace = tmp_path / "executed"
    (model_folder / "model.safetensors").unlink()
    (model_folder / name).write_bytes(pickle.dumps(Canary(trace)))
    with pytest.raises(CheckpointError) as caught:
        resolve(str(model_folder), need="model")
    message = str(caught.value)
    assert name in message
    assert f"from_pretrained('{model_folder}').save_pretrained(" in message
    assert "\n" not in message
    assert not trace.exists()


@pytest.mark.parametrize("name", ["model-{:05}-of-00002.safetensors", "part{}.safetensors"])
def test_shards_without_an_index_are_refused_with_what_is_missing(model_folder: Path, name):
    for index in (1, 2):
        shutil.copy(model_folder / "model.safetensors", model_folder / name.format(index))
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json") as caught:
        resolve(str(model_folder), need="model")
    assert name.format(1) in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"n_layer": 2},  # of one tensor
        {"text_config": {"num_hidden_layers": 10**9}},
        {"num_experts": 10**9},
        {"text_config": {"n_routed_experts": 7}},  # of one tensor of six values
    ],
    ids=str,
)
def test_more_modules_than_there_are_weights_for_are_refused_at_once(model_folder, changes):
    edit(model_folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match="but the weights in its folder are 1 tensors"):
        resolve(str(model_folder), need="model")
    assert resolve(str(model_folder), need="tokenizer")


def test_as_many_modules_as_there_are_weights_for_are_not_refused(model_folder):
    edit(model_folder / "config.json", num_hidden_layers=1, num_experts=6, max_window_layers=99)
    assert resolve(str(model_folder), need="model")


def test_a_pickle_beside_safetensors_does_no_harm(model_folder: Path):
    (model_folder / "pytorch_model.bin").write_bytes(b"\x80")
    assert resolve(str(model_folder), need="model").folder == model_folder


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}},
        {"text_config": {"auto_map": {"AutoConfig": "configuration.Evil"}}},
        {"layers": [{"_attn_implementation": "org/kernel"}]},
        {"_attn_implementation_internal": "org/kernel"},
        {"attn_implementation": "org/kernel"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_configuration_that_names_code_is_refused(model_folder: Path, changes):
    edit(model_folder / "config.json", **changes)
    for need in ("model", "tokenizer"):
        with pytest.raises(CheckpointError, match="names code"):
            resolve(str(model_folder), need=need)


def test_a_tokenizer_that_names_code_is_refused(model_folder: Path):
    path = model_folder / "tokenizer_config.json"
    path.write_text(json.dumps({"auto_map": {"AutoTokenizer": ["t.Evil", None]}}))
    with pytest.raises(CheckpointError, match="auto_map"):
        resolve(str(model_folder), need="tokenizer")


def test_a_flag_that_transformers_once_wrote_names_no_code(model_folder: Path):
    edit(model_folder / "config.json", _attn_implementation_autoset=True)
    assert resolve(str(model_folder), need="model").folder == model_folder


@pytest.mark.parametrize(
    ("name", "need", "says"),
    [
        ("config.json", "model", "not a Hugging Face model folder"),
        ("model.safetensors", "model", r"has no model\.safetensors"),
        ("tokenizer.json", "tokenizer", "AutoTokenizer.from_pretrained"),
    ],
)
def test_a_missing_file_is_named(model_folder: Path, name, need, says):
    (model_folder / name).unlink()
    with pytest.raises(CheckpointError, match=says):
        resolve(str(model_folder), need=need)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000], ids=["cut", "list", "deep"])
def test_a_damaged_configuration_is_refused(model_folder: Path, text):
    (model_folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        resolve(str(model_folder), need="model")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04K\x01.",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": {}}',
    ],
    ids=["empty", "pickle", "huge header", "list", "no offsets"],
)
def test_what_is_no_safetensors_file_is_refused(model_folder: Path, data):
    (model_folder / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        resolve(str(model_folder), need="model")


def test_weights_that_are_cut_off_are_refused(model_folder: Path):
    path = model_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="download or copy it again"):
        resolve(str(model_folder), need="model")


def shard(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": name}}))


def test_weights_may_be_in_shards(model_folder: Path):
    shard(model_folder, "model-00001-of-00001.safetensors")
    assert resolve(str(model_folder), need="model").folder == model_folder


@pytest.mark.parametrize("name", ["missing.safetensors", "../other.safetensors"])
def test_an_index_names_files_of_its_folder_only(model_folder: Path, name):
    (model_folder.parent / "other.safetensors").write_bytes(b"")
    shard(model_folder, name)
    with pytest.raises(CheckpointError, match="not in the folder"):
        resolve(str(model_folder), need="model")


def test_a_link_out_of_the_folder_is_refused(model_folder: Path, tmp_path: Path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (model_folder / "tokenizer_config.json").symlink_to(secret)
    with pytest.raises(CheckpointError, match="link to a file outside its folder"):
        resolve(str(model_folder), need="tokenizer")


def test_a_snapshot_of_the_hub_links_to_its_blobs(model_folder: Path, tmp_path: Path):
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(model_folder.iterdir())):
        path.rename(repository / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert resolve(str(snapshot), need="model").folder == snapshot
