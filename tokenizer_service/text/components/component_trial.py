"""The process that tries a tokenizer's components, run with `python -m`.

The cost of a regular expression cannot be read off its text, and one that runs in a thread
cannot be ended. So they are tried here, where a limit of processor time and of memory ends
the whole process. Processor time is measured and not the clock, so a busy machine does not
matter.

stdin has a JSON array of trials: `{"kind": "pre_tokenizer", "component": {..}}` with either
`"pattern": ".."`, whose time is measured, or `"texts": [..]`, of which it must not make too
much. stdout gets the number of each trial before it begins, one per line, and `done` in the
end. Without `done`, the trial named last has failed, whether the process could say so or was
ended.
"""

import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models

from tokenizer_service.text.components.pattern_texts import Repetition, repetitions

Application = Callable[[str], object]

DONE = "done"

MAX_GROWTH = 16
"""Bytes that a normalizer or decoder may make of one."""

_LENGTH = 4096
_LONGER = 6
# Processor time per character that nothing linear needs: library and pattern take 0.1 to 0.7.
_SUSPICIOUS_S = 1e-6
# For a text that is _LONGER times as long, linear time is 6 times, quadratic 36 times as much.
_MAX_FACTOR = 15
_TRIAL_S = 3.0  # of processor time, for one text
_MEMORY_BYTES = 2**29
_SPARE_BYTES = 4096


def main() -> None:
    """Tries everything in turn."""
    request = json.load(sys.stdin)
    _limit_memory()
    for number, trial in enumerate(request):
        print(number, flush=True)
        apply = _application(trial["kind"], trial["component"])
        if apply is not None and (
            any(_is_slow(apply, one) for one in repetitions(trial["pattern"]))
            if "pattern" in trial
            else any(
                _grows(apply, text * times) for text in trial["texts"] for times in (1, _LENGTH)
            )
        ):
            return
    print(DONE, flush=True)


def _is_slow(apply: Application, repetition: Repetition) -> bool:
    text = repetition.text(_LENGTH)
    if _processor_s(apply, text) < _SUSPICIOUS_S * len(text):
        return False
    longer = repetition.text(_LENGTH * _LONGER)
    limit_s = _MAX_FACTOR * min(_processor_s(apply, text) for _ in range(2))
    return all(_processor_s(apply, longer) > limit_s for _ in range(2))


def _grows(apply: Application, text: str) -> bool:
    with _limited_time():
        made = str(apply(text))
    return len(made.encode()) > MAX_GROWTH * len(text.encode()) + _SPARE_BYTES


def _processor_s(apply: Application, text: str) -> float:
    with _limited_time():
        start = time.thread_time()
        apply(text)
        return time.thread_time() - start


@contextmanager
def _limited_time() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, _TRIAL_S)  # whose signal ends the process
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


def _application(kind: str, component: dict[str, Any]) -> Application | None:
    """Returns what applies a component to a text, None for one that cannot be read.

    The reason is given, in better words, when the tokenizer is loaded.
    """
    empty = tokenizers.Tokenizer(models.WordLevel({}, unk_token=""))
    members = {**json.loads(empty.to_str()), kind: component}
    try:
        made = tokenizers.Tokenizer.from_str(json.dumps(members))
    except Exception:  # the library raises plain Exception
        return None
    part = getattr(made, kind)
    if kind == "normalizer":
        return lambda text: part.normalize_str(text)
    if kind == "pre_tokenizer":
        return lambda text: part.pre_tokenize_str(text)
    return lambda text: part.decode([text])


def _limit_memory() -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere the limit of time is all there is
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES, used + _MEMORY_BYTES))


if __name__ == "__main__":
    main()
