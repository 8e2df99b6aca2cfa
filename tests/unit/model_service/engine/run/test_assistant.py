"""An assistant changes how many steps a sequence takes, and nothing else."""

import random

import pytest
from safetensors.torch import load_file, save_file

from model_service.engine.load.loader import Refused
from model_service.engine.run.assistant import Assistant
from model_service.engine.run.model_runner import ModelRunner
from model_service.protocol import GrowVocabulary, NewRow
from tests.checkpoint_factory import VOCABULARY_SIZE, make_checkpoint
from tests.engine_harness import InprocEngine, tokens_of

NEW = 24
GENERATOR = random.Random(2)
PROMPTS = [[GENERATOR.randrange(VOCABULARY_SIZE) for _ in range(n)] for n in (1, 5, 40)]
SAMPLED = {"do_sample": True, "temperature": 0.7, "top_k": 20}
CONFIGS = [
    {},
    SAMPLED,
    SAMPLED | {"seed_mode": "torch"},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    {"prompt_lookup_num_tokens": 4},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, another one of its vocabulary, and one of another."""
    root = tmp_path_factory.mktemp("assistants")
    return {
        "model": make_checkpoint(root / "model", "llama", seed=1),
        "other": make_checkpoint(root / "other", "qwen3", seed=2),
        "smaller": make_checkpoint(root / "smaller", "llama", vocab_size=VOCABULARY_SIZE - 10),
    }


def engine(folders, assistant: str = "", **settings: object) -> InprocEngine:
    folder = str(folders[assistant]) if assistant else ""
    return InprocEngine(folders["model"], assistant_folder=folder, **settings)


@pytest.fixture(scope="module")
def plain(folders):
    return engine(folders)


@pytest.fixture(scope="module", params=["model", "other"])
def assisted(folders, request):
    return engine(folders, request.param)


def run(one: InprocEngine, prompts=PROMPTS, **config):
    """Returns the tokens of prompts that run together, and what was drafted and accepted."""
    calls = [
        one.submit([prompt], seeds=[seed], max_new_tokens=NEW, **config)
        for seed, prompt in enumerate(prompts)
    ]
    events, drafted, accepted = [], 0, 0
    while (report := one.engine.step()) is not None:
        events += report.events
        if report.stats is not None:
            drafted += report.stats.assistant_drafted
            accepted += report.stats.assistant_accepted
    return [tokens_of(events, call, 1)[0] for call in calls], drafted, accepted


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_tokens_are_those_without_an_assistant(plain, assisted, config):
    tokens, drafted, _ = run(assisted, **config)
    assert tokens == run(plain, **config)[0]
    assert drafted > 0


@pytest.mark.parametrize("config", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_the_model_itself_drafts_every_token_right(folders, config):
    _, drafted, accepted = run(engine(folders, "model"), **config)
    assert accepted == drafted > NEW


def test_a_stranger_is_asked_ever_less(folders):
    one = engine(folders, "other")
    (tokens,), drafted, accepted = run(one, PROMPTS[1:2], max_length=200)
    assert accepted < drafted
    assert drafted < len(tokens)


def test_sequences_that_end_leave_no_slot_behind(folders):
    one = engine(folders, "other")
    assistant = one.engine._speculation._assistant
    before = assistant._runner.cache.num_free_slots
    run(one)
    one.step()
    assert assistant._runner.cache.num_free_slots == before
    assert not assistant._twins


@pytest.mark.parametrize("owner", [Assistant, ModelRunner])
def test_an_assistant_that_fails_harms_nobody(folders, plain, monkeypatch, owner):
    one = engine(folders, "other")
    small = one.engine._speculation._assistant._runner
    name = "_known" if owner is Assistant else "forward"
    original, calls = getattr(owner, name), []

    def failing(self, *args):
        if self is small or owner is Assistant:
            calls.append(args)
            if len(calls) > 2:
                raise RuntimeError("a bug")
        return original(self, *args)

    monkeypatch.setattr(owner, name, failing)
    tokens, _, _ = run(one)
    monkeypatch.undo()
    assert len(calls) > 2
    assert tokens == run(plain)[0]
    one.step()
    _, drafted, _ = run(one)
    assert drafted > 0, "later calls are drafted again"


def test_ids_that_were_added_are_read_as_unknown_and_never_drafted(folders):
    grown = [NewRow(VOCABULARY_SIZE, "copy", generable=True, copy_token_id=7)]
    outcomes = []
    for assistant in ("", "model"):
        one = engine(folders, assistant)
        one.handle(GrowVocabulary(request_id=50, revision=1, rows=grown))
        one.drain()
        prompt = [VOCABULARY_SIZE, *PROMPTS[1]]
        outcomes.append(run(one, [prompt], revision=1)[0])
    assert outcomes[0] == outcomes[1]


def test_memory_of_the_assistant_counts_in_the_admission(folders, monkeypatch):
    monkeypatch.setattr("model_service.engine.load.memory.available_bytes", lambda: 2**20)
    alone, together = engine(folders), engine(folders, "model")
    assert together.info.kv_total_tokens == alone.info.kv_total_tokens // 2


def test_an_assistant_of_another_vocabulary_is_refused(folders):
    with pytest.raises(Refused, match=r"310 ids, and the model 320.*--assistant-model"):
        engine(folders, "smaller")


def test_a_damaged_assistant_is_refused_by_name(folders, tmp_path):
    damaged = make_checkpoint(tmp_path / "damaged", "llama")
    weights = load_file(damaged / "model.safetensors")
    weights.popitem()
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Refused, match="damaged"):
        engine(folders | {"damaged": damaged}, "damaged")
