"""`lockstep info` and `lockstep wait`."""

import sys
from typing import Annotated

import typer
from rich.table import Table

from lockstep_client import Load, ModelInfo, TokenizerInfo, VocabularyRef
from lockstep_client._cli import options
from lockstep_client._cli.drift import drift
from lockstep_client._cli.options import DEFAULT_MODEL, DEFAULT_TOKENIZER
from lockstep_client._cli.session import EXIT_FAILED, connected, notes, out, print_json


def info(
    *,
    json: options.Json = False,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    model: options.ModelAddress = DEFAULT_MODEL,
    tls_ca: options.TlsCa = None,
) -> None:
    """Describe both services. Fail with exit code 1 unless they are in lockstep."""
    with connected(tokenizer=tokenizer, model=model, tls_ca=tls_ca) as client:
        about_tokenizer, about_model = client.tokenizer.info(), client.model.info()
        load = client.model.load()
        apart = drift(client, about_tokenizer.vocabulary, about_model)
    if json:
        print_json(
            {
                "tokenizer": about_tokenizer,
                "model": about_model,
                "load": load,
                "in_lockstep": apart is None,
                "drift": apart,
            }
        )
    else:
        out.print(_table(_tokenizer_facts(about_tokenizer)), "")
        out.print(_table(_model_facts(about_model, load)), "")
        out.print("[green]✓[/] Both serve the same vocabulary." if apart is None else "", end="")
    if apart is not None:
        print(f"lockstep: {apart.message}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED)


def wait(
    *,
    timeout: Annotated[float, typer.Option(help="Longest time to wait, in seconds.", min=0)] = 60,
    tokenizer: options.TokenizerAddress = DEFAULT_TOKENIZER,
    model: options.ModelAddress = DEFAULT_MODEL,
    tls_ca: options.TlsCa = None,
    json: options.Json = False,
) -> None:
    """Wait until both services answer."""
    with (
        connected(tokenizer=tokenizer, model=model, tls_ca=tls_ca) as client,
        notes.status(f"Waiting for {tokenizer} and {model} …"),
    ):
        client.wait_until_ready(timeout)
    if json:
        print_json({"ready": True})


def _table(facts: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _tokenizer_facts(about: TokenizerInfo) -> dict[str, str]:
    roles = ", ".join(f"{role} {token_id}" for role, token_id in about.special_tokens.items())
    return {
        "[bold]tokenizer[/]": f"[bold]{about.vocabulary.tokenizer_id}[/]",
        "model type": about.model_type,
        "vocabulary": _vocabulary(about.vocabulary),
        "special tokens": roles or "none",
        "chat templates": ", ".join(about.chat_templates) or "none",
        "server": about.server_version,
    }


def _model_facts(about: ModelInfo, load: Load) -> dict[str, str]:
    return {
        "[bold]model[/]": f"[bold]{about.model_id}[/]",
        "architecture": f"{about.architecture}, {about.parameter_count / 1e6:.1f} M parameters, "
        f"{about.layer_count} layers, {about.hidden_size} wide",
        "weights": f"{_weights(about)}, {about.execution_path} path, "
        f"attention {about.determinism.attention}",
        "compiled steps": _compiled(about),
        "assistant": about.assistant_model_id or "none",
        "context": f"{about.context_length} tokens",
        "vocabulary": _vocabulary(about.vocabulary),
        "load": f"{load.running_sequence_count} running, {load.waiting_sequence_count} waiting, "
        f"{load.session_count} sessions, KV cache {_share(load)} reserved",
        "server": about.server_version,
    }


def _weights(about: ModelInfo) -> str:
    """Says of which type weights are, and linear layers where theirs is another."""
    linear = about.determinism.weight_format
    return about.dtype if linear in ("", about.dtype) else f"{about.dtype}, linear layers {linear}"


def _compiled(about: ModelInfo) -> str:
    """Says whether steps run compiled, which they do not in the first minutes on a machine."""
    because = f": {about.decode_graph_reason}" if about.decode_graph_reason else ""
    return f"{about.decode_graph_state}{because}"


def _vocabulary(ref: VocabularyRef) -> str:
    return f"{ref.size} ids, revision {ref.revision}, {ref.fingerprint[:12]}"


def _share(load: Load) -> str:
    return f"{load.kv_used_token_count / max(load.kv_total_token_count, 1):.0%}"
