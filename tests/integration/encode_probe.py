"""Encodes a text at a steady pace until its input ends, then prints the latencies in seconds.

In a process of its own, so that whoever measures does not wait for its own work.
Usage: `python -m tests.integration.encode_probe ADDRESS INTERVAL_S`.
"""

import json
import sys
import threading
import time

from lockstep_client import Lockstep

TEXT = "The quick brown fox jumps over the lazy dog, and <tool> is only text. " * 4


def main(address: str, interval_s: float) -> None:
    """Probes one tokenizer service."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    latencies = []
    with Lockstep(tokenizer=address) as client:
        client.tokenizer.encode(TEXT)
        print("ready", flush=True)
        due = time.perf_counter()
        while not ended.is_set():
            # From when it was due: a late answer makes the next one late, not unseen.
            client.tokenizer.encode(TEXT)
            latencies.append(time.perf_counter() - due)
            due += interval_s
            time.sleep(max(0.0, due - time.perf_counter()))
    print(json.dumps(latencies))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
