"""`lockstep generate`: continue a text, or answer a question."""

import sys
from typing import Annotated, Any

import typer

from lockstep_client import Completion, Stream
from lockstep_client._cli import options
from lockstep_client._cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, notes, print_json


def generate(
    prompt: Annotated[str, typer.Argument(help="The text; `-` reads it from stdin.")],
    *,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", "-c", help="Send the text as a question, through the chat template."
        ),
    ] = False,
    system: Annotated[
        str | None,
        typer.Option(help="System message: instructions for the assistant. Implies --chat."),
    ] = None,
    max_new_tokens: options.MaxNewTokens = None,
    stop: options.Stop = None,
    sample: options.Sample = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    beams: options.Beams = None,
    seed: options.Seed = None,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    model: options.ModelAddress = DEFAULT_MODEL,
    tls_ca: options.TlsCa = None,
) -> None:
    """Continue a text, or answer a question, printing tokens as they come."""
    text = sys.stdin.read() if prompt == "-" else prompt
    source: dict[str, Any] = {"prompt": text}
    if chat or system is not None:
        source = {"messages": conversation(text, system)}
    keywords = options.sampling(sample, temperature, top_k, top_p, repetition_penalty, seed)
    keywords |= {"max_new_tokens": max_new_tokens, "stop_strings": stop, "num_beams": beams}
    with connected(tokenizer=tokenizer, model=model, tls_ca=tls_ca) as client:
        stream = client.stream(**source, **keywords)
        if json:
            for _ in stream:
                pass
            print_json(stream.result)
        else:
            summarize(write(stream))


def conversation(question: str, system: str | None = None) -> list[dict[str, str]]:
    """Returns the messages of a conversation that begins with a question."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": question}]


def write(stream: Stream[str, Completion]) -> Completion:
    """Prints pieces of text as they come and returns the result."""
    with stream:
        for piece in stream:
            print(piece, end="", flush=True)
    print()
    return stream.result


def summarize(completion: Completion) -> None:
    """Says on stderr how much was generated, why it ended and how long it took."""
    timing, count = completion.timing, completion.usage.completion_token_count
    facts = [f"{count} tokens", completion.finish_reason.replace("_", " ")]
    facts.append(f"first after {1000 * (timing.queue_s + timing.prefill_s):.0f} ms")
    if count > 1 and timing.decode_s > 0:
        facts.append(f"then {(count - 1) / timing.decode_s:.1f} tokens/s")
    if completion.effective_config.get("do_sample"):
        facts.append(f"seed {completion.seed}")
    notes.print(f"[dim]{' · '.join(facts)}[/]")
