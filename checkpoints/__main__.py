"""`python -m checkpoints [MODEL]` obtains and converts a model and prints its folder."""

import argparse
import sys

import checkpoints


def main() -> int:
    """Resolves the model named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m checkpoints", description=__doc__)
    parser.add_argument("model", nargs="?", default=checkpoints.DEFAULT_MODEL)
    parser.add_argument("--need", choices=["tokenizer", "model"], default="model")
    arguments = parser.parse_args()
    try:
        print(checkpoints.resolve(arguments.model, need=arguments.need).folder)
    except checkpoints.CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
