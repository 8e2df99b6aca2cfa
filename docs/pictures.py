"""Takes the pictures of the command line in `docs/pictures`, of two running services.

Run `python -m docs.pictures` after `make serve`; `LOCKSTEP_TOKENIZER` and `LOCKSTEP_MODEL` say
where else the services are.
"""

import io
import re
import sys
from pathlib import Path

from lockstep_client._cli import app
from lockstep_client._cli.session import out

FOLDER = Path(__file__).resolve().parent / "pictures"
WIDTH = 100
PROMPT = "The capital of France is"

# What each picture shows: the command, and what is typed into it.
PICTURES = {
    "step": (["step", PROMPT, "--temperature", "0.7", "-k", "6", "--seed", "7"], "q\n"),
    "score": (["score", f"{PROMPT} Paris."], ""),
    "encode": (["encode", "naïve café 🙂", "<|im_start|>"], ""),
}


def picture(name: str) -> str:
    """Runs a command and returns what it shows, as SVG."""
    arguments, typed = PICTURES[name]
    sys.stdin = io.StringIO(typed)
    app(arguments, standalone_mode=False)
    shell = " ".join(f'"{each}"' if " " in each else each for each in arguments)
    # Ids from the text, not from its hash, so that a new picture changes what looks new.
    svg = out.export_svg(title=f"lockstep {shell}", unique_id=name)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing from elsewhere
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


def main() -> None:
    """Writes every picture."""
    out.record, out.width, out.quiet = True, WIDTH, False
    for name in PICTURES:
        (FOLDER / f"{name}.svg").write_text(picture(name))


if __name__ == "__main__":
    main()
