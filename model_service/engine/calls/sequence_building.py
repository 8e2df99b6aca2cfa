"""The sequences of a command, one for each of its rows: the one place where they begin."""

from model_service.engine.calls.row_config import of_row
from model_service.engine.sequences.sequence import Kind, Sequence
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import Generate, GenerateSession, OpenSession


def build(
    command: Generate | GenerateSession | OpenSession,
    row: int,
    revisions: list[RevisionRows],
    *,
    kind: Kind,
    limit: int,
) -> Sequence:
    """Builds the sequence of a row, at the end of what the command gave.

    Args:
        command: the call.
        row: index of the row in it.
        revisions: what each revision of the vocabulary is.
        kind: what the sequence works for.
        limit: most tokens of it, whatever else the command asks for.
    """
    spec, revision = command.sequences[row], revisions[command.revision]
    config = of_row(command.config, spec)
    if isinstance(command, Generate):
        limit = min(limit, len(spec.prompt_token_ids) + config.max_new_tokens)
    seq = Sequence(
        request_id=command.request_id,
        row=row,
        token_ids=list(spec.prompt_token_ids),
        config=config,
        seed=spec.seed,
        vocabulary_size=revision.size,
        token_bytes=revision.token_bytes,
        revision=command.revision,
        max_length=limit,
        kind=kind,
        salt=command.cache_salt,
    )
    if spec.num_prompt_tokens is not None:
        seq.num_prompt_tokens = spec.num_prompt_tokens
    if isinstance(command, Generate):
        seq.priority = command.priority
    if not isinstance(command, OpenSession):
        seq.selection, seq.prompt_selection = command.selection, command.prompt_selection
    return seq
