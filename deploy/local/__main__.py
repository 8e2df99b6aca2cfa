"""Runs both services on this machine.

`demo` asks one question through them and stops them; `serve` keeps them up until
Ctrl-C. Standard output carries the result, standard error the progress.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

import checkpoints
from deploy.local import demo
from deploy.local.service import ServiceFailed
from deploy.local.stack import Stack

STATE = Path(".lockstep")
FREE_PORTS = ("--port", "0", "--health-port", "0", "--metrics-port", "0")
CHECK_S = 0.5

progress = Console(stderr=True)


def main() -> int:
    """Reads the command line, obtains the model, and runs the verb."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    parser.add_argument("verb", choices=["demo", "serve"])
    parser.add_argument("--model", default=checkpoints.DEFAULT_MODEL)
    parser.add_argument("--question", default=demo.QUESTION, help="what `demo` asks")
    arguments = parser.parse_args()
    # `kill` ends us as Ctrl-C does: with both services stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Here and not in the services, so that a download or a conversion shows its progress.
        checkpoints.resolve(arguments.model, need="model")
        if arguments.verb == "demo":
            return _demo(arguments.model, arguments.question)
        return _serve(arguments.model)
    except (checkpoints.CheckpointError, ServiceFailed) as error:
        progress.print(str(error), style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        progress.print("Stopped.")
        return 0


def _demo(model: str, question: str) -> int:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lockstep-demo-") as state:
        stack = Stack(
            STATE / "demo",
            model=model,
            # A store of its own: what a demo shows does not depend on earlier growth.
            tokenizer_flags=(*FREE_PORTS, "--store", f"sqlite:///{state}/vocabulary.db"),
            model_flags=FREE_PORTS,
            report=_report,
        )
        with stack:
            ready_s = time.perf_counter() - start
            answer = demo.ask(stack, question, Console())
    _report(str(answer))
    _report(f"Both services were ready after {ready_s:.1f} s.")
    if stack.killed:
        raise ServiceFailed(f"Had to kill {stack.killed}: see the logs in {stack.folder}.")
    _report("Both services ended; no process is left.")
    return 0


def _serve(model: str) -> int:
    with Stack(STATE / "serve", model=model, report=_report) as stack:
        for name, address in (("tokenizer", stack.tokenizer), ("model", stack.model)):
            _report(
                f"{name:<10} gRPC {address.target}, health port {address.health_port}, "
                f"metrics http://{address.host}:{address.metrics_port}/metrics"
            )
        _report(f'Logs are in {stack.folder}. Try: lockstep generate "The capital of France is"')
        _report("Ctrl-C stops both.")
        while True:
            stack.check()
            time.sleep(CHECK_S)


def _report(text: str) -> None:
    progress.print(text, style="dim", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
