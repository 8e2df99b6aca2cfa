"""`lockstep score`: how probable a text is, token by token."""

import math
from typing import Annotated, Any

import typer
from rich.table import Table

from lockstep_client import PositionScores, ScoredSequence, ScoreSelection, VocabularyEntry
from lockstep_client._cli import distribution, options, token_text
from lockstep_client._cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client._cli.session import connected, notes, out, print_json


def score(
    text: Annotated[str, typer.Argument(help="The text.")],
    *,
    context: Annotated[
        str | None, typer.Option(help="Context before the text, which is not scored.")
    ] = None,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    model: options.ModelAddress = DEFAULT_MODEL,
    tls_ca: options.TlsCa = None,
) -> None:
    """Show how probable each token of a text is after those before it.

    Without a context the first token is not scored: nothing comes before it.
    """
    selection = ScoreSelection(logits=True, rank=True)
    with connected(tokenizer=tokenizer, model=model, tls_ca=tls_ca) as client:
        batch = client.tokenizer.encode(text if context is None else context)
        continuation = None
        if context is not None:
            continuation = client.tokenizer.encode(text, add_special_tokens=False).token_ids
        (scored,) = client.model.score(batch, continuation, selection=selection)
        token_ids = [position.token_id or 0 for position in scored.scores]
        entries = client.tokenizer.convert_tokens(ids=token_ids).entries if token_ids else []
    perplexity = math.exp(-scored.logits_logprob / max(len(entries), 1))
    if json:
        print_json(_record(scored, entries, perplexity))
        return
    out.print(_table(scored.scores, entries))
    notes.print(
        f"[dim]{len(entries)} tokens · log-probability {scored.logits_logprob:.3f} · "
        f"perplexity {perplexity:.2f}[/]"
    )


def _table(scores: tuple[PositionScores, ...], entries: list[VocabularyEntry]) -> Table:
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


def _record(
    scored: ScoredSequence, entries: list[VocabularyEntry], perplexity: float
) -> dict[str, Any]:
    return {
        "logprob": scored.logits_logprob,
        "perplexity": perplexity,
        "greedy": scored.greedy,
        "tokens": [
            {
                "position": position.position,
                "token_id": entry.id,
                "token": entry.token_bytes.decode(errors="replace"),
                "logprob": position.logits_logprob,
                "rank": position.rank,
            }
            for position, entry in zip(scored.scores, entries, strict=True)
        ],
    }
