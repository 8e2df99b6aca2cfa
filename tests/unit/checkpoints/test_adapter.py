import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoints import CheckpointError, adapter, resolve, resolve_adapter


@pytest.fixture
def adapter_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "auto_mapping": None, "megatron_core": "megatron.core"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"lora_A": np.arange(6, dtype=np.float32)}, folder / "adapter_model.safetensors")
    return folder


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_lora_adapter_is_taken_as_it_is(adapter_folder):
    assert resolve_adapter(str(adapter_folder)).folder == adapter_folder


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_one_of_the_two_files_is_refused_by_name(adapter_folder, name):
    (adapter_folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        resolve_adapter(str(adapter_folder))


def test_a_pickled_adapter_is_refused(adapter_folder):
    (adapter_folder / "adapter_model.safetensors").rename(adapter_folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin is a pickle"):
        resolve_adapter(str(adapter_folder))


def test_weights_that_are_cut_off_are_refused(adapter_folder):
    path = adapter_folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="download or copy it again"):
        resolve_adapter(str(adapter_folder))


def test_a_link_out_of_the_folder_is_refused(adapter_folder, tmp_path):
    path = adapter_folder / "adapter_model.safetensors"
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match="link to a file outside its folder"):
        resolve_adapter(str(adapter_folder))


@pytest.mark.parametrize(
    "change",
    [
        {"auto_mapping": {"base_model_class": "A", "parent_library": "os"}},
        {"megatron_config": {"tensor_model_parallel_size": 1}},
        {"layer_replication": [[0, 2], [1, 3]]},
        {"alora_invocation_tokens": [1, 2]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_cannot_be_merged_or_names_code_is_refused_by_key(adapter_folder, change):
    edit(adapter_folder, **change)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        resolve_adapter(str(adapter_folder))


def test_a_class_of_transformers_is_no_code_of_the_adapters_own(adapter_folder):
    edit(adapter_folder, auto_mapping={"parent_library": "transformers.models.gptj.modeling_gptj"})
    resolve_adapter(str(adapter_folder))


def test_another_kind_of_adapter_is_refused(adapter_folder):
    edit(adapter_folder, peft_type="PREFIX_TUNING")
    with pytest.raises(CheckpointError, match="PREFIX_TUNING"):
        resolve_adapter(str(adapter_folder))


def test_the_adapter_is_part_of_the_models_fingerprint(model_folder, adapter_folder):
    checkpoint = resolve(str(model_folder), need="model")
    alone = adapter.fingerprint(checkpoint, None)
    assert alone == checkpoint.fingerprint
    first = adapter.fingerprint(checkpoint, resolve_adapter(str(adapter_folder)))
    save_file({"lora_A": np.ones(6, np.float32)}, adapter_folder / "adapter_model.safetensors")
    second = adapter.fingerprint(checkpoint, resolve_adapter(str(adapter_folder)))
    edit(adapter_folder, r=4)
    third = adapter.fingerprint(checkpoint, resolve_adapter(str(adapter_folder)))
    assert len({alone, first, second, third}) == 4


def test_another_file_in_the_folder_does_not_change_the_fingerprint(adapter_folder):
    before = resolve_adapter(str(adapter_folder)).fingerprint
    (adapter_folder / "tokenizer_config.json").write_text("{}")
    assert resolve_adapter(str(adapter_folder)).fingerprint == before
