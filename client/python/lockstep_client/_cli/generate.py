"""`lockstep generate`: continue a text, or answer a question."""

from typing import Annotated, Any

import typer

from lockstep_client import Completion, Lockstep, ModelInfo, Stream
from lockstep_client._cli import options
from lockstep_client._cli.generation import generation
from lockstep_client._cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, notes, print_json


@generation()
def generate(
    prompt: options.Text,
    *,
    chat: options.Chat = False,
    system: Annotated[
        str | None,
        typer.Option(help="System message: instructions for the assistant. Implies --chat."),
    ] = None,
    keywords: dict[str, Any],
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    model: options.ModelAddress = DEFAULT_MODEL,
    tls_ca: options.TlsCa = None,
) -> None:
    """Continue a text, or answer a question, printing tokens as they come."""
    source: dict[str, Any] = {"prompt": prompt}
    if chat or system is not None:
        source = {"messages": conversation(prompt, system)}
    with connected(tokenizer=tokenizer, model=model, tls_ca=tls_ca) as client:
        answer(client, client.stream(**source, **keywords), json=json)


def conversation(question: str, system: str | None = None) -> list[dict[str, str]]:
    """Returns the messages of a conversation that begins with a question."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": question}]


def answer(client: Lockstep, stream: Stream[str, Completion], *, json: bool) -> Completion:
    """Prints pieces of text as they come, or the result as JSON, and returns the result."""
    with stream:
        for piece in stream:
            if not json:
                print(piece, end="", flush=True)
    if json:
        print_json(stream.result)
    else:
        print()
        _summarize(stream.result, client.model.info())
    return stream.result


def _summarize(completion: Completion, model: ModelInfo) -> None:
    """Says on stderr how much was generated, why it ended, how long it took and may take later."""
    timing, count = completion.timing, completion.usage.completion_token_count
    facts = [f"{count} tokens", completion.finish_reason.replace("_", " ")]
    facts.append(f"first after {1000 * (timing.queue_s + timing.prefill_s):.0f} ms")
    if count > 1 and timing.decode_s > 0:
        facts.append(f"then {(count - 1) / timing.decode_s:.1f} tokens/s")
    if completion.effective_config.get("do_sample"):
        facts.append(f"seed {completion.seed}")
    if model.decode_graph_state == "compiling":
        facts.append("faster once the model service has compiled its steps")
    notes.print(f"[dim]{' · '.join(facts)}[/]")
