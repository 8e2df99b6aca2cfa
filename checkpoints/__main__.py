"""`python -m checkpoints [MODEL]` obtains and converts a model and prints its folder."""

import argparse
import signal
import sys
import time

import checkpoints
from checkpoints import Checkpoint, CheckpointAbsent
from checkpoints.folder import Need

LOOK_INTERVAL_S = 1.0


def main() -> int:
    """Resolves the model named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m checkpoints", description=__doc__)
    parser.add_argument("model", nargs="?", default=checkpoints.DEFAULT_MODEL)
    parser.add_argument("--need", choices=["tokenizer", "model"], default="model")
    parser.add_argument(
        "--wait",
        action="store_true",
        help="while the model is not there, wait for another process to put it there",
    )
    arguments = parser.parse_args()
    try:
        if arguments.wait:
            checkpoint = _awaited(arguments.model, arguments.need)
        else:
            checkpoint = checkpoints.resolve(arguments.model, need=arguments.need)
            _ = checkpoint.fingerprint  # remembered: later starts need not read all the weights
    except checkpoints.CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    print(checkpoint.folder)
    return 0


def _awaited(model: str, need: Need) -> Checkpoint:
    """Resolves a model as soon as it is there, and says meanwhile what is missing."""
    # As the first process of a container it would not end on a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    said = ""
    while True:
        try:
            return checkpoints.resolve(model, need=need)
        except CheckpointAbsent as absent:
            if str(absent) != said:
                said = str(absent)
                print(f"Waiting for the model. {said}", file=sys.stderr, flush=True)
        time.sleep(LOOK_INTERVAL_S)


if __name__ == "__main__":
    sys.exit(main())
