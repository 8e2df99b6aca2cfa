"""The sequences of a command, one for each of its rows: the one place where they begin."""

from collections.abc import Iterable

import msgspec

from model_service.engine.sampling.choosing import Choosing
from model_service.engine.sampling.custom_processors import CustomProcessor
from model_service.engine.sequences.sequence import Owner, RowCall, Sequence
from model_service.engine.vocabulary.vocabulary import RevisionRows
from model_service.protocol import Generate, GenerateSession, OpenSession, SequenceSpec
from model_service.protocol.parameters import CONFIG_PARAMETERS, GenerationConfig
from model_service.protocol.processor_arguments import ProcessorSpec, decode


class SequenceBuilder:
    """Builds sequences, at the end of what a command gave.

    Attributes:
        revisions: what each revision of the vocabulary is; grows in place.
    """

    def __init__(
        self, revisions: list[RevisionRows], custom: Iterable[CustomProcessor] = ()
    ) -> None:
        """Builds sequences over a vocabulary.

        Args:
            revisions: what each revision of the vocabulary is; grows in place.
            custom: processors of the operator's.
        """
        self.revisions = revisions
        self._custom = {processor.name: processor for processor in custom}

    def generating(self, command: Generate, row: int, owner: Owner, room: int) -> Sequence:
        """Builds a sequence that generates.

        Args:
            command: the call.
            row: index of the row in it.
            owner: gets its tokens.
            room: most tokens of it, whatever the command asks for.
        """
        spec = command.sequences[row]
        limit = len(spec.prompt_token_ids) + config_of_row(command.config, spec).max_new_tokens
        max_length = min(room, limit)
        return Sequence(
            row=row,
            token_ids=list(spec.prompt_token_ids),
            max_length=max_length,
            choosing=self._choosing(command, row, max_length),
            call=RowCall(
                command.request_id,
                owner,
                command.selection,
                command.prompt_selection,
                command.priority,
                limit=limit,
            ),
            salt=command.cache_salt,
            principal=command.principal,
        )

    def resting(self, command: OpenSession | GenerateSession, row: int) -> Sequence:
        """Builds a row of a session, which no call uses yet."""
        return Sequence(
            row=row,
            token_ids=list(command.sequences[row].prompt_token_ids),
            max_length=command.max_length,
            choosing=self._choosing(command, row, command.max_length),
            salt=command.cache_salt,
            principal=command.principal,
            in_session=True,
        )

    def _choosing(
        self, command: Generate | GenerateSession | OpenSession, row: int, length_limit: int
    ) -> Choosing:
        spec = command.sequences[row]
        return Choosing(
            config=config_of_row(command.config, spec),
            seed=spec.seed,
            revision=self.revisions[command.revision],
            prompt=tuple(spec.prompt_token_ids[: spec.num_prompt_tokens]),
            length_limit=length_limit,
            searches=isinstance(command, Generate) and command.config.num_beams > 1,
            custom=self._custom,
        )


def config_of_row(config: GenerationConfig, spec: SequenceSpec) -> GenerationConfig:
    """Returns the configuration with the lengths of one row.

    Lengths that count padding become lengths without it, less the padding: no
    processor ever sees a pad id. With padding, no prompt has one token, so none
    has a first token that is forced.
    """
    if spec.max_new_tokens not in (None, config.max_new_tokens):
        config = msgspec.structs.replace(config, max_new_tokens=spec.max_new_tokens)
    if spec.num_padding == 0:
        return config
    return msgspec.structs.replace(
        config,
        min_length=max(0, config.min_length - spec.num_padding),
        forced_bos_token_id=None,
        processors=tuple(
            _without_padding(processor, spec.num_padding)
            for processor in config.processors
            if processor.name != "forced_bos_token_id"
        ),
    )


def _without_padding(spec: ProcessorSpec, num_padding: int) -> ProcessorSpec:
    if spec.name != "min_length":
        return spec
    arguments = decode(spec.arguments_json, CONFIG_PARAMETERS[spec.name].arguments)
    shorter = {"min_length": max(0, arguments.min_length - num_padding)}
    return ProcessorSpec(spec.name, msgspec.json.encode(shorter).decode())
