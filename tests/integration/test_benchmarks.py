"""Every small benchmark runs on a tiny model and prints a table with figures."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoint_factory import make_checkpoint
from tests.compiled_code import start

FEW = ("--dtype", "fp32", "--threads", "1", "--rounds", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def table(model: Path, cache: Path, name: str, *arguments: str) -> list[list[str]]:
    """Runs a benchmark and returns the cells of its table, without the header."""
    result = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", "--model", str(model), *FEW, *arguments],
        env={**os.environ, "LOCKSTEP_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cell)]


def are_equal(cell: str) -> bool:
    """Whether a cell says `n of n`, and n is not 0."""
    some, every = numbers(cell)
    return some == every > 0


def test_the_sampler_chooses_what_the_reference_does(model, tmp_path):
    rows = table(model, tmp_path, "sampler", "--rows", "9", "--prompt-tokens", "12", "--steps", "3")
    assert [row[0] for row in rows] == ["greedy", "top_k", "top_p", "mixed"]
    assert all(are_equal(row[-1]) for row in rows)
    assert numbers(rows[-1][-1]) == [54, 54]  # rows, steps and rounds


def test_guesses_change_no_token(model, tmp_path):
    rows = table(
        model, tmp_path, "prompt_lookup", "--guesses", "4", "--new-tokens", "12",
        "--decode-graphs", "off",
    )  # fmt: skip
    assert [row[:2] for row in rows] == [
        [task, count] for task in ("copy", "story") for count in ("0", "4")
    ]
    assert all(are_equal(row[-1]) for row in rows)


def test_a_known_prefix_is_measured_beside_a_new_one(model, tmp_path):
    rows = table(model, tmp_path, "prefix_reuse", "--prompt-tokens", "200", "--shared", "180")
    new, known, ratio, lookup = (numbers(row[-1]) for row in rows)
    assert all(value > 0 for value in (*known, *ratio, *lookup))
    assert len(new) == 3


def test_pauses_are_counted_until_every_prompt_has_begun(model, tmp_path):
    rows = table(
        model, tmp_path, "long_prompts", "--prompts", "0", "3", "--prompt-tokens", "200",
        "--budget", "0.001", "--decode-graphs", "off",
    )  # fmt: skip
    assert [row[0] for row in rows] == ["0", "3"]
    assert all(numbers(row[1])[0] >= 3 for row in rows)  # steps: no prompt fits one
    assert numbers(rows[1][-1])


FEW_STREAMS = ("--prompt-tokens", "12", "--new-tokens", "6", "--streams", "3")


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_steps_beside_a_compiling_process_are_measured(model, tmp_path):
    (row,) = table(model, tmp_path, "compilation", "--start-delay", "0", *FEW_STREAMS)
    assert row[0] == "eager"
    assert all(len(numbers(cell)) == 3 for cell in row[1:4])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("compiling")
def test_compiled_steps_give_the_tokens_of_eager_ones(model, compiled_code):
    start(model)
    (row,) = table(model, compiled_code, "compiled_steps", *FEW_STREAMS)
    assert row[0] == "3"
    assert are_equal(row[-1])


def judge(model: Path, run: Path, *arguments: str) -> list[dict]:
    """Runs the judge in its smallest size and returns the rounds that are kept."""
    few = ("--precision", "fp32", "--threads", "1", "--decode-graphs", "off", "--peers", "generate")
    small = ("--streams", "1,3", "--prompt-tokens", "12", "--new-tokens", "6", "--prefill", "20")
    result = subprocess.run(
        [sys.executable, "-m", "bench", "--model", model, "--run", run, *few, *small, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_judge_adds_the_rounds_that_are_missing(model, tmp_path):
    judge(model, tmp_path, "--only", "streams", "--rounds", "1")
    first = (tmp_path / "rounds.jsonl").read_text()
    rounds = judge(model, tmp_path, "--only", "streams", "--rounds", "2")
    assert (tmp_path / "rounds.jsonl").read_text().startswith(first)
    assert sorted((r["case"], r["side"], r["round"]) for r in rounds) == [
        (case, side, number)
        for case in ("1", "3")
        for side in ("generate fp32", "ours fp32")
        for number in (0, 1)
    ]
    assert all(r["figures"]["tokens_per_s"] > 0 for r in rounds)


@pytest.mark.slow
def test_the_judge_writes_ratios_and_pictures_of_every_part(model, tmp_path):
    parts = ["streams", "prefill", "arrivals", "products", "sampler", "steps", "text", "memory"]
    rounds = judge(model, tmp_path, "--only", ",".join(parts), "--rounds", "1")
    assert list(dict.fromkeys(r["part"] for r in rounds)) == parts
    summary = json.loads((tmp_path / "report.json").read_text())
    ratios = {(line["part"], line["side"]): line["ratios"] for line in summary if line["against"]}
    assert ratios.keys() == {
        ("streams", "generate fp32"),
        ("prefill", "generate fp32"),
        ("products", "products fp32"),
        ("text", "tokenizers"),
        ("memory", "generate fp32"),
    }
    assert all(value > 0 for figures in ratios.values() for value in figures.values())
    tables = (tmp_path / "report.md").read_text()
    assert tables.count("### ") == len(parts)
    for part in ("streams", "prefill", "arrivals"):
        assert (tmp_path / f"{part}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_front_is_measured_by_itself(model, tmp_path):
    rounds = judge(model, tmp_path, "--only", "front", "--rounds", "1")
    assert [r["case"] for r in rounds] == [
        f"{pace}, {streams}"
        for pace in ("steps of 20 ms", "steps at once")
        for streams in (1, 32, 256)
    ]
    assert all(r["figures"]["processor_us"] > 0 for r in rounds)


@pytest.mark.slow
def test_the_check_of_a_gpu_runs_all_its_stages_on_the_cpu(tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-m", "bench.gpu_check", "--dry", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found) == ["environment", "attention", "tests", "memory", "speed", "service"]
    assert "cannot run without a GPU" in result.stdout
    assert "answers through gRPC as generate on the CPU: True" in result.stdout
