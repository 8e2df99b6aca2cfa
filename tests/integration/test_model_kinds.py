"""Real services with models that are not as the others: served by the compat path, adapted."""

from pathlib import Path

import peft
import pytest
import torch
from lockstep.v1 import model_info_service_pb2, model_service_pb2
from transformers import AutoModelForCausalLM, GPTJConfig, PreTrainedModel

from tests.checkpoint_factory import VOCABULARY_SIZE, make_checkpoint
from tests.integration.model_process import ModelProcess, model_process, ragged
from tests.services import running_process

PROMPT = [5, 6, 7, 8]
NEW = 8


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-gptj"
    config = GPTJConfig(
        vocab_size=64, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, bos_token_id=0, eos_token_id=0
    )
    config.initializer_range = 0.2
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def generated(model: PreTrainedModel) -> list[int]:
    out = model.eval().generate(
        input_ids=torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(PROMPT) :].tolist()


def answer(service: ModelProcess) -> list[int]:
    config = {"max_new_tokens": NEW, "do_sample": False, "eos_token_ids": {}}
    request = model_service_pb2.GenerateRequest(prompt=ragged(PROMPT), generation_config=config)
    return list(service.model.Generate(request, timeout=60).sequences[0].token_ids)


def info(service: ModelProcess) -> model_info_service_pb2.GetModelInfoResponse:
    return service.info.GetModelInfo(model_info_service_pb2.GetModelInfoRequest())


@pytest.mark.filterwarnings("ignore")  # peft's own
def test_a_model_of_the_compat_path_answers_alone_and_with_an_adapter(checkpoint, tmp_path):
    adapter = tmp_path / "adapter"
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "fc_in"], init_lora_weights=False)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    peft.get_peft_model(model, config).save_pretrained(adapter)
    plain = AutoModelForCausalLM.from_pretrained(checkpoint)
    with model_process(checkpoint, tmp_path) as service:
        before = info(service)
        assert before.execution_path == "compat"
        assert answer(service) == generated(plain)
    adapted = peft.PeftModel.from_pretrained(plain, adapter)
    with model_process(checkpoint, adapter, "--adapter", str(adapter)) as service:
        assert answer(service) == generated(adapted)
        assert info(service).model_fingerprint != before.model_fingerprint


def test_a_model_that_is_refused_ends_the_service_with_the_reason(checkpoint, tmp_path):
    flags = ["--model", str(checkpoint), "--threads", "1", "--device-map", '{"lm_head": "cpu"}']
    with running_process("model_service", *flags, folder=tmp_path) as service:
        assert service.process.wait(60) != 0
        assert '{\\"lm_head\\": \\"cpu\\"}' in service.log.read_text()


def test_an_assistant_is_named_and_gives_the_same_answers(tmp_path):
    model = make_checkpoint(tmp_path / "model", "llama", seed=1)
    assistant = make_checkpoint(tmp_path / "assistant", "qwen3", seed=2)
    (tmp_path / "alone").mkdir()
    with model_process(model, tmp_path / "alone") as service:
        expected = answer(service)
        assert info(service).assistant_model_id == ""
    with model_process(model, tmp_path, "--assistant-model", str(assistant)) as service:
        assert answer(service) == expected
        assert info(service).assistant_model_id == "assistant"


def test_an_assistant_of_another_vocabulary_ends_the_service_with_the_reason(tmp_path):
    model = make_checkpoint(tmp_path / "model", "llama")
    other = make_checkpoint(tmp_path / "other", "llama", vocab_size=VOCABULARY_SIZE - 10)
    flags = ["--model", str(model), "--assistant-model", str(other), "--threads", "1"]
    with running_process("model_service", *flags, folder=tmp_path) as service:
        assert service.process.wait(60) != 0
        said = service.log.read_text()
        assert "--assistant-model other has another vocabulary than model: id 310 is None" in said
