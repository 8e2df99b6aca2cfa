"""`lockstep chat`: a conversation."""

from typing import Annotated, Any, Final

import typer

from lockstep_client._cli import options
from lockstep_client._cli.generate import answer, conversation
from lockstep_client._cli.generation import generation
from lockstep_client._cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, notes, out

PROMPT: Final = "[bold cyan]>[/] "


@generation()
def chat(
    *,
    system: Annotated[
        str | None, typer.Option(help="System message: instructions for the assistant.")
    ] = None,
    keywords: dict[str, Any],
    json: Annotated[
        bool, typer.Option("--json", help="Print each answer as one JSON object, and no prompt.")
    ] = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    model: options.ModelAddress = DEFAULT_MODEL,
    tls_ca: options.TlsCa = None,
) -> None:
    """Hold a conversation. An empty line or Ctrl-D ends it, Ctrl-C stops an answer."""
    messages = conversation("", system)[:-1]
    with connected(tokenizer=tokenizer, model=model, tls_ca=tls_ca) as client:
        while question := _ask("" if json else PROMPT):
            messages += conversation(question)
            stream = client.stream(messages=messages, **keywords)
            try:
                completion = answer(client, stream, json=json)
            except KeyboardInterrupt:
                notes.print("\n[dim]stopped; the answer is not part of the conversation[/]")
                messages.pop()
                continue
            messages.append({"role": "assistant", "content": completion.text})


def _ask(prompt: str) -> str:
    try:
        return out.input(prompt).strip()
    except EOFError:
        return ""
