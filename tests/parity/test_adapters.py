"""LoRA adapters merged at load, against `peft`'s own model beside Hugging Face's."""

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPTJConfig, LlamaConfig, PreTrainedConfig

from model_service.engine.load.loader import Refused
from model_service.protocol.generation import ScoreSelection
from tests.checkpoint_factory import ARCHITECTURES
from tests.engine_harness import InprocEngine, array, scores_of, tokens_of

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's own

PROMPT = [3, 5, 7, 9, 11, 2, 4]
NEW = 6

MODELS = {
    "llama": ARCHITECTURES["llama"],
    "gpt2": ARCHITECTURES["gpt2"],  # its weights are transposed
    "gptj": lambda: GPTJConfig(vocab_size=64, n_embd=32, n_layer=2, n_head=2, rotary_dim=8),
}

KINDS = {
    "plain": {},
    "rank-stabilized": {"use_rslora": True, "rank_pattern": {"0": 2}},
    "weight-decomposed": {"use_dora": True},
    "with biases": {"bias": "lora_only"},
}


def save(config: PreTrainedConfig, folder: Path) -> Path:
    config.initializer_range = 0.2
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path, **options: object) -> Path:
    options = {"target_modules": "all-linear", "r": 4, "lora_alpha": 8, **options}
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, config).save_pretrained(folder)
    return folder


def expected(base: Path, folder: Path) -> tuple[list[int], torch.Tensor]:
    """What the adapter gives beside the model, not merged."""
    model = AutoModelForCausalLM.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(model, folder).eval()
    out = model.generate(
        input_ids=torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[0, len(PROMPT) :].tolist(), torch.cat(out.logits)


def generated(engine: InprocEngine) -> tuple[list[int], torch.Tensor]:
    selection = ScoreSelection(logits=True, amount="full")
    request_id = engine.submit([PROMPT], selection=selection, max_new_tokens=NEW)
    events = engine.drain()
    logits = [torch.from_numpy(array(p.logits)) for p in scores_of(events, request_id)]
    return tokens_of(events, request_id, 1)[0], torch.stack(logits)


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_equals_the_adapter_beside_the_model(architecture, kind, tmp_path):
    base = save(MODELS[architecture](), tmp_path / "base")
    folder = save_adapter(base, tmp_path / "adapter", **KINDS[kind])
    token_ids, logits = expected(base, folder)
    got_ids, got = generated(InprocEngine(base, adapter_folder=str(folder)))
    assert got_ids == token_ids
    assert float((got - logits).abs().max()) <= 1e-4 * float(logits.abs().max())
    plain = generated(InprocEngine(base))[1]
    assert float((plain - logits).abs().max()) > 0.1, "the adapter changes nothing"


def test_an_adapter_that_lacks_weights_is_refused(tmp_path):
    base = save(MODELS["llama"](), tmp_path / "base")
    folder = save_adapter(base, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(Refused, match="do not match its configuration"):
        InprocEngine(base, adapter_folder=str(folder))


def test_an_adapter_for_another_model_is_refused(tmp_path):
    base = save(MODELS["llama"](), tmp_path / "base")
    other = save(LlamaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1), tmp_path / "o")
    folder = save_adapter(other, tmp_path / "adapter")
    with pytest.raises(Refused, match="The adapter"):
        InprocEngine(base, adapter_folder=str(folder))


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
    ],
    ids=lambda options: "-".join(options) + "-" + next(iter(options.values()))[0],
)
def test_an_adapter_of_a_grown_vocabulary_says_how_to_grow_the_model(options, tmp_path):
    config = MODELS["llama"]()
    base = save(config, tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(config.vocab_size + 3)
    model.save_pretrained(tmp_path / "grown")
    folder = save_adapter(tmp_path / "grown", tmp_path / "adapter", **options)
    with pytest.raises(Refused, match=r"resize_token_embeddings\(323\)") as caught:
        InprocEngine(base, adapter_folder=str(folder))
    assert "\n" not in str(caught.value)
    assert generated(InprocEngine(tmp_path / "grown", adapter_folder=str(folder)))


def test_an_adapter_whose_weights_are_no_numbers_is_refused(tmp_path):
    base = save(MODELS["llama"](), tmp_path / "base")
    folder = save_adapter(base, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = torch.nan
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(Refused, match="The adapter"):
        InprocEngine(base, adapter_folder=str(folder))


def test_an_adapter_of_a_weight_that_is_used_twice_is_refused(tmp_path):
    config = MODELS["llama"]()
    config.tie_word_embeddings = True
    base = save(config, tmp_path / "base")
    folder = save_adapter(base, tmp_path / "adapter", target_modules=["lm_head"])
    with pytest.raises(Refused, match="used twice"):
        InprocEngine(base, adapter_folder=str(folder))
