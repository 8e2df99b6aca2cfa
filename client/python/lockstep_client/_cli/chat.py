"""`lockstep chat`: a conversation."""

from typing import Annotated

import typer

from lockstep_client._cli import options
from lockstep_client._cli.generate import conversation, summarize, write
from lockstep_client._cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, notes, out


def chat(
    *,
    system: Annotated[
        str | None, typer.Option(help="System message: instructions for the assistant.")
    ] = None,
    max_new_tokens: options.MaxNewTokens = None,
    sample: options.Sample = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    model: options.ModelAddress = DEFAULT_MODEL,
    tls_ca: options.TlsCa = None,
) -> None:
    """Hold a conversation. An empty line or Ctrl-D ends it, Ctrl-C stops an answer."""
    keywords = options.sampling(sample, temperature, top_k, top_p, repetition_penalty, seed)
    keywords["max_new_tokens"] = max_new_tokens
    messages = conversation("", system)[:-1]
    with connected(tokenizer=tokenizer, model=model, tls_ca=tls_ca) as client:
        while question := _ask():
            messages += conversation(question)
            stream = client.stream(messages=messages, **keywords)
            try:
                completion = write(stream)
            except KeyboardInterrupt:
                notes.print("\n[dim]stopped; the answer is not part of the conversation[/]")
                messages.pop()
                continue
            summarize(completion)
            messages.append({"role": "assistant", "content": completion.text})


def _ask() -> str:
    try:
        return out.input("[bold cyan]>[/] ").strip()
    except EOFError:
        return ""
