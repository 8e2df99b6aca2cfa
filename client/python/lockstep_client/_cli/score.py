"""`lockstep score`: how probable a text is, token by token."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from lockstep_client import PositionScores, ScoreSelection, VocabularyEntry
from lockstep_client._cli import distribution, options, token_text
from lockstep_client._cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, notes, out, print_json
from lockstep_client._cli.standard_streams import given_text


def score(
    text: options.Text,
    *,
    context: Annotated[
        str | None,
        typer.Option(
            help="Context before the text, which is not scored; `-` reads standard input.",
            callback=given_text,
        ),
    ] = None,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    model: options.ModelAddress = DEFAULT_MODEL,
    tls_ca: options.TlsCa = None,
) -> None:
    """Show how probable each token of a text is after those before it.

    Without a context the first token is not scored: nothing comes before it. A text that
    is longer than the model's context is scored in windows, each token after at least
    half a context.
    """
    with connected(tokenizer=tokenizer, model=model, tls_ca=tls_ca) as client:
        batch = client.tokenizer.encode(text if context is None else context)
        (token_ids,), first, continuations = batch.token_ids, 1, None
        if context is not None:
            first = len(token_ids)
            continuations = client.tokenizer.encode(text, add_special_tokens=False).token_ids
            token_ids = [*token_ids, *continuations[0]]
        if len(token_ids) <= first:
            raise typer.BadParameter(
                f"The text has {len(token_ids) - first + 1} token, and nothing before it: "
                "give a --context, or a longer text."
                if context is None and token_ids
                else "The text is empty.",
                param_hint="TEXT",
            )
        context_length = client.model.info().context_length
        (scored,) = client.model.score(
            batch,
            continuations,
            window=context_length,
            selection=ScoreSelection(logits=True, rank=True),
            progress=notes.is_terminal and len(token_ids) > context_length,
        )
        entries = token_text.entries(client, token_ids[first:])
    if json:
        print_json(
            {
                "logprob": scored.logits_logprob,
                "perplexity": scored.perplexity,
                "greedy": scored.greedy,
                "tokens": _records(scored.scores, entries, first),
            }
        )
        return
    out.print(_table(scored.scores, entries))
    notes.print(
        f"[dim]{len(scored.scores)} tokens · log-probability {scored.logits_logprob:.3f} · "
        f"perplexity {scored.perplexity:.2f}[/]"
    )


def _table(scores: Sequence[PositionScores], entries: list[VocabularyEntry]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1))
    table.add_column("token", no_wrap=True)
    for name in ("id", "rank", "log p"):
        table.add_column(name, justify="right", style="dim")
    table.add_column("p", no_wrap=True)
    for position, entry in zip(scores, entries, strict=True):
        logprob = position.logits_logprob or 0.0
        table.add_row(
            token_text.render(entry),
            str(entry.id),
            str(position.rank),
            f"{logprob:.3f}",
            distribution.bar(math.exp(logprob), distribution.RAW_STYLE),
        )
    return table


def _records(
    scores: Sequence[PositionScores], entries: list[VocabularyEntry], first: int
) -> list[dict[str, Any]]:
    return [
        {
            "position": number,
            "token_id": entry.id,
            "token": entry.token_bytes.decode(errors="replace"),
            "logprob": position.logits_logprob,
            "rank": position.rank,
        }
        for number, (position, entry) in enumerate(zip(scores, entries, strict=True), start=first)
    ]
