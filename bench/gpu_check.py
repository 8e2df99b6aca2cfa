"""`python -m bench.gpu_check`: whether the engine is right on a GPU, and how fast it is there.

Needs a GPU and no network, and takes less than eight minutes. Every stage fails by
itself; what is known is in `gpu.json` after each, and the lines are printed again at
the end. `--dry` runs all stages on the CPU, with a tiny model: so that the program is
known to run before a machine with a GPU is there.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import torch
import torch.nn.functional as F
from lockstep.v1 import model_service_pb2
from lockstep.v1.model_service_pb2_grpc import ModelServiceStub
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, LlamaConfig

from bench.local_engine import LocalEngine, greedy
from model_service.engine.load import loader

ROOT = Path(__file__).parent.parent

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        **{"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128},
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"head_dim": 16, "max_position_embeddings": 1024},
    },
    "135m": {
        **{"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536},
        **{"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
        **{"head_dim": 64, "max_position_embeddings": 8192, "tie_word_embeddings": True},
    },
    "1b": {
        **{"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192},
        **{"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
        **{"head_dim": 64, "max_position_embeddings": 8192, "tie_word_embeddings": True},
    },
    "8b": {
        **{"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336},
        **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
        **{"head_dim": 128, "max_position_embeddings": 8192},
    },
}
"""Configurations of Llama; weights are random and made on the device."""

CONFIGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "top_k": {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "top_p": {"do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 0.9},
}

PARITY = (
    *("placement", "engine", "architectures", "sessions", "growth", "processors", "guidance"),
    *("beams", "pipelines", "speculation", "self_test", "synth_id", "processor_trace"),
)
"""Tests that compare the engine with `generate` on the CPU. Their engines are where `auto` says."""

LOAD_S = 120.0
"""Seconds until a service that was started answers."""

BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


@dataclass(slots=True)
class Check:
    """What has been found out, and where.

    Attributes:
        dry: whether all of it runs on the CPU.
        folder: for results.
        budget_s: seconds for all stages.
        results: by stage.
        lines: for people.
    """

    dry: bool
    folder: Path
    budget_s: float
    results: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> torch.device:
        """Where models are."""
        return torch.device("cpu" if self.dry else "cuda:0")

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, where speed is measured."""
        return torch.float32 if self.dry else torch.bfloat16

    @property
    def left_s(self) -> float:
        """Seconds until everything should be over."""
        return self.budget_s - (time.monotonic() - self._start)

    def say(self, stage: str, line: str, **values: Any) -> None:
        """Notes a result, and prints it."""
        self.results.setdefault(stage, {})[line.partition(":")[0]] = values or line
        self.lines.append(f"{stage:12} {line}")
        print(self.lines[-1], flush=True)

    def seconds(self, function: Callable[[], object], count: int = 20) -> float:
        """Measures a call, after three to warm up."""
        for _ in range(3):
            function()
        self.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            function()
        self.synchronize()
        return (time.perf_counter() - start) / count

    def synchronize(self) -> None:
        """Waits for the GPU."""
        if not self.dry:
            torch.cuda.synchronize()


# --- Stages --------------------------------------------------------------------------------------


def environment(check: Check) -> None:
    """Versions, bandwidth, and what a launch costs."""
    for name in ("torch", "transformers", "accelerate", "triton", "flash_attn", "kernels"):
        try:
            version = getattr(importlib.import_module(name), "__version__", "there")
        except ImportError:
            version = "not installed"
        check.say("environment", f"{name}: {version}")
    name = "the CPU" if check.dry else torch.cuda.get_device_name()
    data = torch.empty(2**24 if check.dry else 2**32, dtype=torch.uint8, device=check.device)
    read = data.numel() / check.seconds(lambda: data.view(torch.int32).sum(), 5) / 1e12
    small = torch.zeros(16, device=check.device)
    launch = check.seconds(lambda: small.add_(1), 200) * 1e6
    check.say(
        *("environment", f"{name}: reads {read * 1e3:.1f} GB/s, a launch takes {launch:.1f} us"),
        bandwidth=read * 1e12,
        launch_us=launch,
    )


def attention(check: Check) -> None:
    """Attention of decoding rows by backend, and whether a row depends on others."""
    for rows, length in ((1, 64),) if check.dry else ((1, 8192), (32, 1024), (128, 1024)):
        options: dict[str, Any] = {"device": check.device, "dtype": check.dtype}
        query = torch.randn(rows, 8, 4, 128, **options)
        key, value = (torch.randn(rows, 8, length, 128, **options) for _ in range(2))
        for name in BACKENDS:
            try:
                with sdpa_kernel(getattr(SDPBackend, name)):
                    took = check.seconds(lambda q=query, k=key, v=value: _attend(q, k, v))  # type: ignore[misc]
                said = f"{took * 1e6:.0f} us"
            except RuntimeError:
                said = "cannot run this here"
            check.say("attention", f"{rows} x {length} {name}: {said}")
        alone = _attend(query[:1], key[:1], value[:1])
        same = torch.equal(alone, _attend(query, key, value)[:1])
        check.say("attention", f"{rows} x {length} a row alone equals it among others: {same}")


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value)


def tests(check: Check) -> None:
    """The repository's own tests of parity, on the GPU in float32."""
    files = [f"tests/parity/test_{name}.py" for name in PARITY]
    if check.dry:
        check.say("tests", "those of parity: cannot run without a GPU; the pretended one instead")
        files = ["tests/pretended_gpus/test_pretend_device.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider"]
    command += ["-m", "not full and not default_model", "--timeout", "60", *files]
    command += [] if check.dry else ["-n", "12"]
    timeout_s = max(20.0, min(170.0, check.left_s))
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    (check.folder / "tests.log").write_text(done.stdout + done.stderr)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    last = (done.stdout.splitlines() or ["nothing was said"])[-1]
    check.say("tests", f"status {done.returncode}: {last}", status=done.returncode, failed=failed)


def memory(check: Check) -> None:
    """Which path models of each size take with default settings, and what they take."""
    for size in ["tiny"] if check.dry else ["135m", "1b", "8b"]:
        start = time.monotonic()
        try:
            info = engine(check, size).info
            said = f"{info.execution_path}, {info.kv_total_tokens} tokens of KV cache"
        except loader.Refused as refusal:
            said = f"refused, {refusal}"
        peak = 0 if check.dry else torch.cuda.max_memory_allocated()
        took = time.monotonic() - start
        check.say("memory", f"{size}: {said}; peak {peak / 2**30:.1f} GiB, started in {took:.1f} s")
        _empty(check)


def speed(check: Check) -> None:
    """Steps at 1 to 128 rows, against `generate` and against reading weights and KV cache."""
    measured = check.results.get("environment", {}).values()
    bandwidth = next((v["bandwidth"] for v in measured if "bandwidth" in v), 1e10)
    for size in ["tiny"] if check.dry else ["135m", "1b", "8b"]:
        length, steps = (32, 5) if check.dry else (512, 40)
        counts = [1, 4] if check.dry else [1, 8, 32, 128]
        ours = engine(check, size, max_running_sequences=counts[-1], max_context_tokens=1024)
        for rows in counts:
            if check.left_s < 20:
                check.say("speed", f"{size} {rows} rows: no time is left")
                continue
            times = {
                name: _step_s(check, ours, rows, length, steps, config)
                for name, config in CONFIGS.items()
            }
            floor = _floor_bytes(SHAPES[size], rows, length, check.dtype) / bandwidth
            said = ", ".join(f"{name} {1e3 * took:.2f} ms" for name, took in times.items())
            ratio = times["greedy"] / floor
            check.say("speed", f"{size} {rows} rows: {said}; greedy is {ratio:.1f} times the floor")
        del ours
        _empty(check)
        plain = _model(check, size)
        for rows in counts:
            if check.left_s < 20:
                break
            took = _generate_s(check, plain, rows, length, steps)
            check.say("speed", f"{size} {rows} rows by generate: {1e3 * took:.2f} ms a step")
        del plain
        _empty(check)


def service(check: Check) -> None:
    """The model service from its command to an answer through gRPC."""
    folder = check.folder / "served"
    config = LlamaConfig(**SHAPES["tiny"], bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    command = [sys.executable, "-m", "model_service", "--model", str(folder), "--dtype", "fp32"]
    command += ["--device-map", str(check.device), "--tokenizer-address", "none"]
    for port in ("--port", "--health-port", "--metrics-port"):
        command += [port, "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        prompt = [3, 5, 7, 9]
        request = model_service_pb2.GenerateRequest()
        request.prompt.token_batch.sequences.add().ids[:] = prompt
        request.generation_config.max_new_tokens = 8
        request.generation_config.do_sample = False
        with grpc.insecure_channel(address) as channel:
            answer = _when_loaded(lambda: ModelServiceStub(channel).Generate(request, timeout=60))
        options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        expected = model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()
        found = list(answer.sequences[0].token_ids)
        check.say("service", f"answers through gRPC as generate on the CPU: {found == expected}")
    finally:
        process.terminate()
        process.wait(timeout=60)


def _when_loaded(call: Callable[[], Any]) -> Any:
    """Makes a call until the service has loaded its model."""
    end = time.monotonic() + LOAD_S
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
        time.sleep(0.5)


STAGES = (environment, attention, tests, memory, speed, service)


# --- Models --------------------------------------------------------------------------------------


def _model(check: Check, size: str) -> Any:
    config = LlamaConfig(**SHAPES[size], bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    with check.device:
        return AutoModelForCausalLM.from_config(config, dtype=check.dtype).eval()


def engine(check: Check, size: str, **settings: Any) -> LocalEngine:
    """Makes an engine on random weights: nothing is read or written."""
    folder = check.folder / size
    LlamaConfig(**SHAPES[size]).save_pretrained(folder)
    if not check.dry:
        torch.cuda.reset_peak_memory_stats()

    def weights(*arguments: object) -> Any:
        return _model(check, size).requires_grad_(False)

    with mock.patch.object(loader, "_load_weights", weights):
        return LocalEngine(folder, str(check.dtype).removeprefix("torch."), **settings)


def _empty(check: Check) -> None:
    if not check.dry:
        torch.cuda.empty_cache()


def _prompts(rows: int, length: int) -> list[list[int]]:
    return [[(31 * row + place) % 500 for place in range(length)] for row in range(rows)]


def _step_s(
    check: Check, ours: LocalEngine, rows: int, length: int, steps: int, config: dict[str, Any]
) -> float:
    """Returns the median duration of a step in which all rows decode."""
    call = ours.submit(_prompts(rows, length), greedy(length, **config))
    while (stats := ours.step()) and (stats.prefill_tokens or stats.decode_rows < rows):
        pass
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        ours.step()
        times.append(time.perf_counter() - start)
    ours.cancel(call)
    ours.drain()
    return statistics.median(times)


def _generate_s(check: Check, model: Any, rows: int, length: int, steps: int) -> float:
    ids = torch.tensor(_prompts(rows, length), device=check.device)

    def run(count: int) -> float:
        check.synchronize()
        start = time.perf_counter()
        lengths = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
        model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **lengths)
        check.synchronize()
        return time.perf_counter() - start

    run(4)
    return (run(steps + 4) - run(4)) / steps


def _floor_bytes(shape: dict[str, Any], rows: int, length: int, dtype: torch.dtype) -> int:
    """Returns what a step has to read: the weights, and the KV cache of all rows."""
    width, inner, layers = (
        shape[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    queries, pairs = shape["num_attention_heads"], shape["num_key_value_heads"]
    heads = shape["head_dim"] * (2 * queries + 2 * pairs)
    weights = layers * width * (heads + 3 * inner) + shape["vocab_size"] * width
    past = rows * length * layers * 2 * pairs * shape["head_dim"]
    return int(weights + past) * dtype.itemsize


def main() -> int:
    """Runs the stages. Returns 0 if none failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="run all stages on the CPU")
    parser.add_argument("--stages", default=",".join(stage.__name__ for stage in STAGES))
    parser.add_argument("--budget-s", type=float, default=450.0)
    parser.add_argument("--out", type=Path, help="folder of the results")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    folder = arguments.out or Path(os.environ.get("OUT") or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    check = Check(arguments.dry, folder, arguments.budget_s)
    failed = []
    for stage in STAGES:
        if stage.__name__ not in arguments.stages.split(","):
            continue
        try:
            stage(check)
        except Exception as error:  # what the others find out counts
            traceback.print_exc()
            failed.append(stage.__name__)
            check.say(stage.__name__, f"failed: {type(error).__name__}: {error}")
        (folder / "gpu.json").write_text(json.dumps(check.results, indent=1, default=str))
    print("\n".join(["", *check.lines, "", f"{folder / 'gpu.json'}; failed: {failed or 'none'}"]))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
