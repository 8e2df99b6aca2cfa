"""Runs both services on this machine.

`demo` asks one question through them and stops them; `serve` keeps them up until
Ctrl-C. Standard output carries the result, standard error the progress.
"""

import argparse
import os
import shlex
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
from tokenizer_service.settings import TokenizerSettings

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
        checkpoint = checkpoints.resolve(arguments.model, need="model")
        if arguments.verb == "demo":
            return _demo(arguments.model, arguments.question)
        settings = TokenizerSettings.from_command_line([])
        return _serve(arguments.model, settings.shown_store(checkpoint.name))
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


def _serve(model: str, store: str) -> int:
    with Stack(STATE / "serve", model=model, report=_report) as stack:
        for name, address in (("tokenizer", stack.tokenizer), ("model", stack.model)):
            _report(
                f"{name:<10} gRPC {address.target}, health port {address.health_port}, "
                f"metrics http://{address.host}:{address.metrics_port}/metrics"
            )
        command = os.path.relpath(Path(sys.executable).with_name("lockstep"))
        again = "" if model == checkpoints.DEFAULT_MODEL else f" --model {shlex.quote(model)}"
        _report(f"Logs are in {stack.folder}. The vocabulary is kept in {store};")
        _report(f"to start over with it: stop both, then {command} vocab reset{again}")
        _report(f'Try: {command} generate "The capital of France is"')
        _report(f"Steps are compiled in the first minutes, which are slower; {command} info says")
        _report("when that is done. Ctrl-C stops both.")
        while True:
            stack.check()
            time.sleep(CHECK_S)


def _report(text: str) -> None:
    progress.print(text, style="dim", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
