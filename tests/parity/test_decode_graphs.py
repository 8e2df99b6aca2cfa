"""Compiled steps against `generate` and against eager ones, on a model compiled for the test."""

import os
import random
import time
from pathlib import Path

import pytest
import torch

from model_service.engine.run.decode_graph import (
    comparison,
    compilation,
    decode_graphs,
    operators,
)
from model_service.engine.run.decode_graph.compilation import Compilation
from model_service.engine.run.decode_graph.compiled_steps import CompiledSteps
from model_service.engine.run.decode_graph.compiler import Part
from model_service.engine.schedule.prefill import PrefillClock
from model_service.engine.sequences.run import Run
from model_service.protocol import Cancel, GraphStatus, GrowVocabulary, NewRow
from tests.checkpoint_factory import VOCABULARY_SIZE
from tests.compiled_code import graphs_of, start
from tests.engine_harness import InprocEngine, tokens_of

from .conftest import Pair

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("compiling"),
]

LENGTHS = (1, 3, 17, 40, 23, 5, 30, 12)
NEW = 12


def prompts(seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(VOCABULARY_SIZE) for _ in range(n)] for n in LENGTHS]


def first_part(engine: InprocEngine) -> Path:
    """Waits until an engine's compiling process has made something; returns its folder."""
    graphs = graphs_of(engine)
    while graphs._compilation is None:
        graphs.advance()
    while (said := graphs._compilation.poll()) is None:
        time.sleep(0.05)
    assert isinstance(said, Part), said
    return Path(said.folder)


@pytest.fixture(scope="module")
def llama(pair_of) -> Pair:
    return pair_of("llama")


@pytest.fixture(scope="module")
def compiled(llama: Pair, compiling: None) -> InprocEngine:
    engine = start(llama.folder)
    assert graphs_of(engine).status == GraphStatus("ready")
    return engine


@pytest.fixture
def ready_operators(compiled_code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the compiler find our operators compiled, for whatever folder."""
    library = operators.build_once(compiled_code) / operators.FILE
    compiler = compiled_code / "compiler"
    compiler.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *{operators.SOURCE.name}*) ;; *) exec g++ "$@" ;; esac\n'
        "for output; do :; done\n"  # the last argument
        f'exec cp {library} "$output"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))


@pytest.fixture
def paths(compiled: InprocEngine, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each step of the test ran compiled."""
    runner, seen = compiled.engine._runner, []
    forward = runner.forward

    def watched(runs: list[Run]) -> torch.Tensor:
        logits = forward(runs)
        seen.append(runner.compiled)
        return logits

    monkeypatch.setattr(runner, "forward", watched)
    return seen


def test_tokens_alone_equal_generate(llama, compiled, paths):
    for prompt in prompts():
        expected = llama.generate(prompt, NEW).token_ids
        assert compiled.generate([prompt], max_new_tokens=NEW) == [expected]
    assert paths == [True] * len(LENGTHS) * NEW


def test_tokens_in_one_ragged_batch_equal_generate(llama, compiled, paths):
    expected = [llama.generate(prompt, NEW).token_ids for prompt in prompts()]
    assert compiled.generate(prompts(), max_new_tokens=NEW) == expected
    assert paths == [True] * NEW


def test_tokens_of_requests_that_join_a_running_batch_equal_generate(llama, compiled, paths):
    events, ids = [], []
    for prompt in prompts(1):
        stranger = compiled.submit([prompt[::-1]], max_new_tokens=50)
        ids.append(compiled.submit([prompt], max_new_tokens=NEW))
        for _ in range(3):
            events += compiled.step() or []
        compiled.handle(Cancel(stranger))
    events += compiled.drain()
    for prompt, request_id in zip(prompts(1), ids, strict=True):
        assert tokens_of(events, request_id, 1) == [llama.generate(prompt, NEW).token_ids]
    assert all(paths)


def test_drafts_in_compiled_steps_equal_generate(llama, compiled, paths):
    words = (5, 6, 7)  # few, so that a sequence's own drafts are right at times
    others = [i for i in range(VOCABULARY_SIZE) if i not in words]
    prompt = [5, 6, 7, 5, 6]
    expected = llama.generate(prompt, 60, suppress_tokens=others).token_ids
    options = {"allowed_token_ids": words, "prompt_lookup_num_tokens": 8}
    assert compiled.generate([prompt], max_new_tokens=60, **options) == [expected]
    assert all(paths)
    assert len(paths) < 60


def decoding(engine: InprocEngine) -> list[Run]:
    """Prefills prompts and returns the runs of the step in which all of them decode."""
    engine.submit(prompts(), max_new_tokens=NEW)
    while any(seq.num_pending != 1 for seq in engine.engine._scheduler.active) or (
        len(engine.engine._scheduler.active) < len(LENGTHS)
    ):
        engine.step()
    sequences = sorted(engine.engine._scheduler.active, key=lambda seq: seq.slot)
    return [Run(seq, 1, (0,)) for seq in sequences]


def test_logits_equal_those_of_the_eager_step(llama, compiled):
    runs, runner = decoding(compiled), compiled.engine._runner
    got = runner.forward(runs)
    assert runner.compiled
    for run in runs:
        run.sequence.num_cached -= 1
    graphs = graphs_of(compiled)
    usable, graphs._usable = graphs._usable, set()
    expected = runner.forward(runs)
    graphs._usable = usable
    assert not runner.compiled
    for run in runs:
        run.sequence.num_cached -= 1
    compiled.drain()
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_a_step_leaves_the_slots_of_others_alone(compiled):
    runs, runner = decoding(compiled), compiled.engine._runner
    kept = runs[:3]  # of the sequences in their slots, only some take part
    before = [layer.k.data.clone() for layer in runner.cache.slot_layers]
    runner.forward(kept)
    assert runner.compiled
    for layer, old in zip(runner.cache.slot_layers, before, strict=True):
        changed = (layer.k.data != old).flatten(2).any(-1).nonzero().tolist()
        assert changed == [[run.sequence.slot, run.sequence.num_cached - 1] for run in kept]
    for run in kept:
        run.sequence.num_cached -= 1
    compiled.drain()


def test_a_prompt_in_chunks_beside_rows_that_decode_equals_generate(llama, compiled, paths):
    """Steps of rows and a chunk, the last of which is too short for a tile of the kernel."""
    prompt = prompts(2)[3] * 4
    scheduler = compiled.engine._scheduler
    clock = scheduler._clock
    running = compiled.submit(prompts(), max_new_tokens=40)
    events = [event for _ in range(3) for event in compiled.step() or []]
    scheduler._clock = PrefillClock(1.0, tokens_per_s=52)
    added = compiled.submit([prompt], max_new_tokens=NEW)
    events += compiled.drain()
    scheduler._clock = clock
    expected = [llama.generate(prompt, 40).token_ids for prompt in prompts()]
    assert tokens_of(events, running, len(LENGTHS)) == expected
    assert tokens_of(events, added, 1) == [llama.generate(prompt, NEW).token_ids]
    assert all(paths)


def test_old_logits_are_equal_to_the_bit_after_growth_between_two_steps(llama):
    engine = start(llama.folder)  # from the cache; its vocabulary grows
    runs, runner = decoding(engine), engine.engine._runner
    before = runner.forward(runs)
    for run in runs:
        run.sequence.num_cached -= 1
    row = NewRow(VOCABULARY_SIZE, "mean", generable=False)
    engine.handle(GrowVocabulary(request_id=99, revision=1, rows=[row]))
    while engine.engine.is_growing:
        engine.engine._growth.advance()
    after = runner.forward(runs)
    assert runner.compiled
    assert after.shape[1] == VOCABULARY_SIZE + 1
    assert torch.equal(after[:, :VOCABULARY_SIZE], before)
    for run in runs:
        run.sequence.num_cached -= 1
    engine.drain()


def test_growth_beyond_the_reserve_keeps_the_graphs_and_new_ids_are_as_in_eager_steps(llama):
    """The embedding moves in memory while a graph is in use."""
    few = {"reserved_vocabulary_rows": 2}
    engines = [start(llama.folder, **few), InprocEngine(llama.folder, **few)]
    new = range(VOCABULARY_SIZE, VOCABULARY_SIZE + 40)
    rows = [NewRow(i, "copy", True, copy_token_id=i - VOCABULARY_SIZE + 20) for i in new]
    results = []
    for engine in engines:
        weight = engine.engine._runner._embedding.weight.data_ptr()
        running = engine.submit([prompts()[2]], max_new_tokens=60)
        events = [event for _ in range(20) for event in engine.step() or []]
        engine.handle(GrowVocabulary(request_id=99, revision=1, rows=rows))
        while engine.engine.is_growing:
            events += engine.step() or []
        given = [[*prompt, new[index]] for index, prompt in enumerate(prompts(3))]
        added = engine.submit(given, max_new_tokens=NEW, revision=1)
        events += engine.drain()
        assert engine.engine._runner._embedding.weight.data_ptr() != weight
        compiled = engine is engines[0]
        assert engine.engine._runner.compiled == compiled
        assert (graphs_of(engine).status == GraphStatus("ready")) == compiled
        results.append((tokens_of(events, running, 1), tokens_of(events, added, len(LENGTHS))))
    assert results[0] == results[1]
    assert results[0][0] == [llama.generate(prompts()[2], 60).token_ids]


def test_a_second_start_compiles_nothing(llama, compiled, monkeypatch):
    monkeypatch.setattr(decode_graphs, "Compilation", None)
    engine = InprocEngine(llama.folder, decode_graphs="auto")
    assert graphs_of(engine).status == GraphStatus("ready")


def test_graphs_that_differ_are_not_used(llama, compiled, monkeypatch):
    run = CompiledSteps.run

    def wrong(self, graph, embeds, positions, slots):
        return run(self, graph, embeds, positions, slots) * 1.01

    monkeypatch.setattr(CompiledSteps, "run", wrong)
    engine = start(llama.folder)
    assert graphs_of(engine).status.state == "unavailable"
    assert "differ" in graphs_of(engine).status.reason
    expected = [llama.generate(prompt, NEW).token_ids for prompt in prompts()]
    assert engine.generate(prompts(), max_new_tokens=NEW) == expected


def test_an_attention_kernel_that_differs_is_not_used(llama, compiled, monkeypatch):
    monkeypatch.setattr(comparison, "ATTENTION_TOLERANCE", {torch.float32: 0.0})
    engine = start(llama.folder)
    assert graphs_of(engine).status.state == "unavailable"
    assert "attention kernel" in graphs_of(engine).status.reason


def test_a_graph_that_fails_in_operation_is_replaced_by_the_eager_step(
    llama, compiled, monkeypatch
):
    engine = start(llama.folder)
    request_id = engine.submit(prompts(), max_new_tokens=NEW)
    events = []
    for _ in range(4):
        events += engine.step() or []
    assert engine.engine._runner.compiled

    def fails(*arguments):
        raise RuntimeError("out of order")

    monkeypatch.setattr(CompiledSteps, "run", fails)
    events += engine.drain()
    expected = [llama.generate(prompt, NEW).token_ids for prompt in prompts()]
    assert tokens_of(events, request_id, len(LENGTHS)) == expected
    assert graphs_of(engine).status.state == "unavailable"
    assert "out of order" in graphs_of(engine).status.reason


def test_modules_with_hooks_are_not_compiled(llama):
    engine = InprocEngine(llama.folder)
    model = engine.engine._runner._model
    model.model.layers[0].register_forward_hook(lambda module, args, output: output)
    assert "hooks" in decode_graphs.unsuitable(model, engine.engine._runner)


def test_without_a_compiler_the_model_serves_and_says_why(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = start(llama.folder)
    assert graphs_of(engine).status == GraphStatus(
        "unavailable", "No C++ compiler (g++) is installed."
    )
    expected = llama.generate(prompts()[2], NEW).token_ids
    assert engine.generate([prompts()[2]], max_new_tokens=NEW) == [expected]


@pytest.mark.usefixtures("ready_operators")
def test_what_is_compiled_goes_to_the_folder_that_was_set(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "models"))
    wanted = tmp_path / "compiled"
    engine = InprocEngine(llama.folder, decode_graphs="auto", compile_cache=str(wanted))
    assert wanted in first_part(engine).parents
    graphs_of(engine).close()
    assert list(tmp_path.iterdir()) == [wanted]


@pytest.mark.usefixtures("ready_operators")
def test_where_models_cannot_be_written_code_is_compiled_all_the_same(llama, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "file"))
    engine = InprocEngine(llama.folder, decode_graphs="auto")
    folder = first_part(engine)
    assert (folder / "kernels.so").is_file()
    graphs_of(engine).close()
    assert not folder.exists()


def test_the_compiling_process_ends_with_the_engine(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path / "cache"))
    engine = InprocEngine(llama.folder, decode_graphs="auto")
    graphs = graphs_of(engine)
    while graphs._compilation is None:
        graphs.advance()
    process = graphs._compilation._process
    assert process.poll() is None
    graphs.close()
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_process_that_dies_without_a_word_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "MODULE", "model_service.no_such_module")
    died = Compilation(decode_graphs.Recipe("", "float32", [], []), tmp_path)
    while (said := died.poll()) is None:
        time.sleep(0.01)
    assert "exit code 1" in said.reason
    died.close()


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3"])
def test_other_architectures_compile_and_equal_generate(pair_of, architecture):
    """Positions of its own and merged products of another kind; windows shorter than prompts."""
    pair = pair_of(architecture)
    engine = start(pair.folder)
    assert graphs_of(engine).status == GraphStatus("ready")
    expected = [pair.generate(prompt, NEW).token_ids for prompt in prompts()]
    assert engine.generate(prompts(), max_new_tokens=NEW) == expected
    assert engine.engine._runner.compiled
