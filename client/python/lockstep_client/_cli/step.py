"""`lockstep step`: see what the model thinks, and choose its tokens."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from lockstep_client import Lockstep
from lockstep_client._calls.argument import SHOWN, Argument
from lockstep_client._cli import distribution, options
from lockstep_client._cli.generate import conversation
from lockstep_client._cli.generation import LENGTHS, generation
from lockstep_client._cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, out, print_json
from lockstep_client._cli.stepper import Stepper
from lockstep_client.exceptions import ContextLengthExceeded, TokenIdOutOfRange

HELP_LINE = (
    "[bold cyan]1-{count}[/] pick · [bold cyan]s[/] server's draw [green]◂[/] · "
    "[bold cyan]g[/] greedy · [bold cyan]#id[/] or text · [bold cyan]b[/] back · "
    "[bold cyan]?[/] help · [bold cyan]q[/] quit"
)
HELP = """\
A number of the list  appends that token.
s                     appends the token that the server draws here (◂).
g                     appends the most probable token.
#504                  appends the token of an id.
b                     takes the last token back.
?, h, help            shows this.
q, Ctrl-D             quits, and prints the text.
Anything else         is appended as text; quotes keep its spaces, and letters such as "s"."""
_HELP_WORDS = ("?", "h", "help")


class Choice(StrEnum):
    """How tokens are chosen without asking the user."""

    GREEDY = "greedy"
    SAMPLE = "sample"


@generation(*LENGTHS)
def step(
    text: options.Text,
    *,
    chat: options.Chat = False,
    candidates: Annotated[
        int, typer.Option("--candidates", "-k", help="Tokens to show.", min=1)
    ] = 12,
    choose: Annotated[
        Choice | None, typer.Option(help="Choose without asking, for scripts.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Most tokens to choose without asking.", min=1)] = 16,
    keywords: dict[str, Any],
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    model: options.ModelAddress = DEFAULT_MODEL,
    tls_ca: options.TlsCa = None,
) -> None:
    """Show the distribution of the next token as bars, and let you choose the token.

    The left bars are the model's own probabilities, the right ones those after
    processors and warpers, from which the server draws.
    """
    keywords.setdefault("do_sample", True)
    if json and choose is None:
        raise typer.BadParameter("--json needs --choose greedy or --choose sample.")
    with connected(tokenizer=tokenizer, model=model, tls_ca=tls_ca) as client:
        if chat:
            prompt = client.tokenizer.apply_chat_template(conversation(text))
        else:
            prompt = client.tokenizer.encode(text)
        with (
            Argument("--candidates", fields=SHOWN).named(),
            Stepper(client, prompt, candidates=candidates, keywords=keywords) as stepper,
        ):
            if choose is None:
                _ask_for_tokens(client, stepper)
                chosen = stepper.token_ids[stepper.prompt_length :]
                out.print(client.tokenizer.decode(chosen) if chosen else "", markup=False)
            else:
                _choose_tokens(client, stepper, choose, steps, json=json)


def _ask_for_tokens(client: Lockstep, stepper: Stepper) -> None:
    """Draws, asks and steps until the person has had enough."""
    problem = ""
    while True:
        entries = stepper.entries(stepper.token_ids)
        out.clear()
        out.print(
            distribution.screen(
                entries, stepper.prompt_length, stepper.distribution, stepper.config
            ),
            HELP_LINE.format(count=len(stepper.distribution.candidates)),
            Text(problem, "red"),
            sep="\n",
        )
        try:
            answer = out.input("[bold cyan]>[/] ")
        except EOFError:
            return
        if answer.strip() == "q":
            return
        problem = _act(client, stepper, answer)


def _act(client: Lockstep, stepper: Stepper, answer: str) -> str:
    """Does what was typed, and returns why it could not."""
    if answer.strip() in _HELP_WORDS:
        return HELP
    if answer.strip() == "b":
        return "" if stepper.back() else "No token is left to take back."
    try:
        if chosen := _token_ids(client, stepper, answer):
            stepper.choose(chosen)
    except TokenIdOutOfRange:
        return f"There is no token with the id {answer.strip().removeprefix('#')}."
    except (ValueError, ContextLengthExceeded) as error:
        return str(error)
    return ""


def _token_ids(client: Lockstep, stepper: Stepper, answer: str) -> list[int]:
    """Reads an answer: a number of the list, a command, `#id`, or text, quoted or not."""
    candidates = stepper.distribution.candidates
    word = answer.strip()
    if word == "s":
        return [stepper.distribution.drawn_id]
    if word == "g":
        return [candidates[0].entry.id]
    if word.startswith("#"):
        if not word[1:].isdecimal():
            raise ValueError(f"{word} is not an id such as #504; quote it to type it as text.")
        return [int(word[1:])]
    if word.isdecimal():
        if not 1 <= int(word) <= len(candidates):
            raise ValueError(f"The list has no number {word}; quote it to type it as text.")
        return [candidates[int(word) - 1].entry.id]
    text = word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else answer
    return client.tokenizer.encode(text, add_special_tokens=False).token_ids[0]


def _choose_tokens(
    client: Lockstep, stepper: Stepper, choose: Choice, steps: int, *, json: bool
) -> None:
    """Chooses tokens without asking, until one ends the sequence."""
    record: list[dict[str, Any]] = []
    with client.tokenizer.open_decoder() as decoder:
        for _ in range(steps):
            here = stepper.distribution
            greedy_id = here.candidates[0].entry.id
            token_id = here.drawn_id if choose is Choice.SAMPLE else greedy_id
            record.append(_step_record(stepper, token_id))
            if token_id in stepper.config["eos_token_ids"]:
                break
            if not json:
                print(decoder.feed([token_id]), end="", flush=True)
            stepper.choose([token_id])
        if not json:
            print(decoder.end())
    if json:
        prompt = stepper.token_ids[: stepper.prompt_length]
        print_json({"prompt_token_ids": prompt, "config": stepper.config, "steps": record})


def _step_record(stepper: Stepper, token_id: int) -> dict[str, Any]:
    here = stepper.distribution
    (entry,) = stepper.entries([token_id])
    return {
        "position": len(stepper.token_ids),
        "token_id": token_id,
        "token": entry.token_bytes.decode(errors="replace"),
        "entropy": here.entropy,
        "candidates": [
            {
                "token_id": candidate.entry.id,
                "token": candidate.entry.token_bytes.decode(errors="replace"),
                "logit": candidate.logit,
                "probability": candidate.probability,
                "processed_probability": candidate.processed,
            }
            for candidate in here.candidates
        ],
    }
