"""Every architecture of `docs/models.md` against `generate`, float32: tokens, logits, sessions."""

import random
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from model_service.protocol import Cancel, CloseSession, ForkSession, TruncateSession
from model_service.protocol.generation import ScoreSelection
from tests.architectures import TESTED, Architecture
from tests.checkpoint_factory import (
    ARCHITECTURES,
    VOCABULARY_SIZE,
    make_model,
)
from tests.engine_harness import InprocEngine, tokens_of
from tests.pairs import Pair

from .test_engine import assert_close, logits_of
from .test_sessions import Driven, tokens

LENGTHS = (17, 1, 40, 5)  # both sides of windows and of chunks
NEW = 8
PAGE = Path(__file__).parents[2] / "docs" / "models.md"

# Those of the factory have tests of their own for what the first two here claim.
BRIEFLY = [name for name in TESTED if name not in ARCHITECTURES]


def make_pair(architecture: Architecture, folder: Path) -> Pair:
    config = architecture.make()
    config.initializer_range = architecture.weights
    model = make_model(config, seed=0)
    # None of a configuration's own defaults, such as a forced last token.
    model.generation_config = GenerationConfig(eos_token_id=0, do_sample=False)
    model.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return Pair(folder, model, InprocEngine(folder, max_running_sequences=8, max_session_rows=8))


@pytest.fixture(scope="module", params=TESTED)
def named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Pair]:
    name = request.param
    return name, make_pair(TESTED[name], tmp_path_factory.mktemp(name))


@pytest.fixture
def brief(named: tuple[str, Pair]) -> Pair:
    if named[0] not in BRIEFLY:
        pytest.skip("tested at length in test_engine.py and test_sessions.py")
    return named[1]


def make_prompts(seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(VOCABULARY_SIZE) for _ in range(n)] for n in LENGTHS]


def test_tokens_alone_and_in_one_ragged_batch_equal_generate(brief):
    prompts = make_prompts()
    expected = [brief.generate(prompt, NEW).token_ids for prompt in prompts]
    assert len({tuple(row) for row in expected}) > 1, "the prompts do not matter"
    assert brief.engine.generate(prompts, max_new_tokens=NEW) == expected
    for prompt, token_ids in zip(prompts, expected, strict=True):
        assert brief.engine.generate([prompt], max_new_tokens=NEW) == [token_ids]


def test_tokens_and_logits_of_requests_that_join_a_running_batch_equal_generate(brief):
    engine, events, ids = brief.engine, [], []
    engine.engine._scheduler._clock._budget_s = 0.0  # the smallest chunks
    selection = ScoreSelection(logits=True, amount="full")
    prompts = make_prompts(1)
    for prompt in prompts:
        stranger = engine.submit([prompt[::-1]], max_new_tokens=20)
        ids.append(engine.submit([prompt], selection=selection, max_new_tokens=NEW))
        for _ in range(3):
            events += engine.step() or []
        engine.handle(Cancel(stranger))
    events += engine.drain()
    for prompt, request_id in zip(prompts, ids, strict=True):
        expected = brief.generate(prompt, NEW)
        assert tokens_of(events, request_id, 1) == [expected.token_ids]
        assert_close(logits_of(events, request_id), expected.logits)


def test_a_session_that_is_forked_cut_and_looks_ahead_equals_its_tokens_from_scratch(brief):
    session = Driven(brief)
    session.open([tokens(3, 0), tokens(23, 1)])
    session.check([1], [2])
    session.do(ForkSession, ["f"], [1, 0])
    fork = Driven(brief, "f")
    fork.check([5], tokens(9, 3))
    session.check([6], [7])
    session.do(TruncateSession, [2, 11])
    session.check([8], tokens(5, 4))
    session.check([3], tokens(4, 5), look_ahead=True)
    session.check([4], [9])
    fork.check([9], [10])
    fork.do(CloseSession)
    session.do(CloseSession)
    assert brief.engine.engine._runner.cache.num_free_slots >= 16


def row_of(name: str, pair: Pair) -> str:
    """What the page says of an architecture, as the engine has it."""
    engine, runner = pair.engine, pair.engine.engine._runner
    config = pair.model.config
    windows = getattr(config, "sliding_window", None) or getattr(config, "window_size", None)
    if getattr(config, "attention_chunk_size", None):
        windows = True
    cells = [
        f"`{name}`",
        f"`{type(pair.model).__name__}`",
        engine.info.execution_path,
        "windows" if windows else "",
        "in chunks" if getattr(runner, "extends", True) else "as a whole",
        "at once" if runner.cache.cuts_freely else "computed again",
        "yes" if name in GGUF_SUPPORTED_ARCHITECTURES else "",
        TESTED[name].about,
    ]
    return "| " + " | ".join(cells) + " |"


def test_the_page_says_what_the_engine_does(named):
    name, pair = named
    assert pair.engine.info.execution_path == TESTED[name].path
    row = row_of(name, pair)
    assert row.replace("|  |", "| |") in PAGE.read_text().splitlines(), row


def test_the_page_names_no_architecture_that_is_not_tested():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in rows] == list(TESTED)
