"""Callers in processes of their own that are killed, or stop for ever, amid their calls.

`python -m tests.faults.leaving_callers` reads lines of JSON: `[ADDRESS, [[PATH, HEXADECIMAL
REQUEST], ...]]`. For each it makes the calls in a new process, which prints `begun` once each call
has an answer to read, and then waits for ever. Without gRPC a process can be forked in a moment.
"""

import json
import os
import signal
import sys
import time

from tests.faults.raw_http2 import RawCall


def _call(address: str, calls: list[list[str]]) -> None:
    made = [RawCall(address, path, bytes.fromhex(request)) for path, request in calls]
    for call in made:
        call.read_some()
    print(json.dumps(os.getpid()), flush=True)
    time.sleep(3600)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who ends is not waited for
    for line in sys.stdin:
        if os.fork() == 0:
            _call(*json.loads(line))
