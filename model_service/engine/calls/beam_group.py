"""The rows of one beam search: what they have learned, which beam each holds, and the results.

A prompt takes one row through its prefill and B from then on, all of which it
holds from the start. A beam that goes on keeps its row; one that goes on twice is
copied to the row of one that does not go on at all.

B: beams, V: ids of the sequence's revision.
"""

from collections.abc import Callable, Iterator

import msgspec
import torch
from torch import Tensor

from model_service.engine.calls.beam_search import BeamSearch, Hypothesis
from model_service.engine.calls.scores import describe
from model_service.engine.sampling import random
from model_service.engine.sampling.draw import without_replacement
from model_service.engine.sampling.torch_draws import TorchDraws
from model_service.engine.sequences.sequence import Sequence
from model_service.protocol import Failure, Finish, SequenceTokens
from model_service.protocol.generation import PositionScores


class BeamGroup:
    """One prompt of a call.

    Attributes:
        first: the row that goes through the prompt. The others are its companions.
    """

    def __init__(self, first: Sequence, num_results: int) -> None:
        """Starts a search at the end of the prompt.

        Args:
            first: the row with the prompt; its companions are the others, B with it.
            num_results: sequences of the call that the search is for, at most B; the row of
                the first of them is that of `first`.
        """
        self.first = first
        self._rows = [first, *first.companions]  # in the order of beams
        config = first.choosing.config
        self._search = BeamSearch(
            num_beams=len(self._rows),
            length_penalty=config.length_penalty,
            early_stopping=config.early_stopping,
            num_ends=len({*config.eos_token_ids, *config.stop_token_ids}),
            max_new_tokens=first.choosing.length_limit - first.num_prompt_tokens,
        )
        draws_as_torch = config.do_sample and config.seed_mode == "torch"
        self._torch_draws = TorchDraws(first.choosing.seed) if draws_as_torch else None
        self._num_results = num_results
        self._prompt_scores: list[PositionScores] = []
        self._arrived: dict[int, tuple[Tensor, Tensor]] = {}  # logits and scores by beam
        self._described: dict[int, PositionScores] = {}  # the first of each beam

    @property
    def is_complete(self) -> bool:
        """Whether all beams have been through the model since the last choice."""
        return len(self._arrived) == (1 if self._at_prompt else len(self._rows))

    @property
    def is_done(self) -> bool:
        """Whether the search has ended."""
        return self._search.done

    def arrive(self, seq: Sequence, logits: Tensor, scores: Tensor) -> None:
        """Takes what follows a row.

        Args:
            seq: one of the rows.
            logits: `[V]` float32, raw.
            scores: `[V]` float32, processed log-probabilities.
        """
        if seq.call.selection is not None:  # the next step overwrites them
            logits = logits.clone()
        self._arrived[self._rows.index(seq)] = (logits, scores)

    def choose(self) -> None:
        """Appends a token to each beam that goes on.

        Raises:
            Exception: whatever fails for its rows; the search cannot go on.
        """
        if self._at_prompt:  # whatever passes through the model again is not described again
            self._prompt_scores = self.first.call.take_given_scores()
        self.first.call.note_token()
        log_probs = torch.stack([self._arrived[beam][1] for beam in sorted(self._arrived)])
        self._search.advance(
            log_probs.expand(len(self._rows), -1),
            end=lambda beam, token_id: self._row(beam).finish_reason(token_id),
            describe=self._describe,
            draw=self._draw if self.first.choosing.config.do_sample else None,
        )
        self._arrived.clear()
        self._described.clear()

    def move(self, copy: Callable[[Sequence, Sequence], None]) -> None:
        """Makes every row hold the beam of its place, with the fewest copies.

        Args:
            copy: copies what is cached of one row to the slot of another with the same tokens.
        """
        paths = [path for path in self._search.beams if path is not None]
        parents = [self._rows.index(self._row(path.beam)) for path in paths]
        free = [row for beam, row in enumerate(self._rows) if beam not in parents]
        taken = set[int]()
        rows = []
        for parent in parents:
            row = self._rows[parent]
            if parent in taken:
                source, row = row, free.pop()
                row.follow(source)
                copy(source, row)
            taken.add(parent)
            rows.append(row)
        for row, path in zip(rows, paths, strict=True):
            row.give([path.token_id])
        self._rows = rows

    def results(self) -> Iterator[SequenceTokens]:
        """Yields the whole of each sequence, best first. Changes the first row's tokens."""
        position = self.first.num_prompt_tokens
        no_token = Failure("NoTokenLeft", {"row": self.first.row, "position": position})
        for index in range(self._num_results):
            if index < len(self._search.finished):
                yield self._result(index, self._search.finished[index])
            else:  # the search has found fewer sequences
                yield self._failed(index, no_token)

    def failures(self, failure: Failure) -> Iterator[SequenceTokens]:
        """Yields the end of each sequence by a failure of the search."""
        for index in range(self._num_results):
            yield self._failed(index, failure)

    @property
    def _at_prompt(self) -> bool:
        return self.first.num_new_tokens == 0

    def _row(self, beam: int) -> Sequence:
        """Returns the row that a beam has been through the model with."""
        return self.first if self._at_prompt else self._rows[beam]

    def _describe(self, beam: int, token_id: int) -> PositionScores | None:
        """Describes the distribution of a token. Tokens of one beam share their full rows."""
        selection = self.first.call.selection
        if selection is None:
            return None
        beam = self._rows.index(self._row(beam))
        logits, scores = self._arrived[beam]
        position = len(self._row(beam).token_ids)
        described = describe(self._row(beam), selection, position, token_id, logits, scores)
        same = self._described.setdefault(beam, described)
        return msgspec.structs.replace(described, logits=same.logits, scores=same.scores)

    def _draw(self, sums: Tensor, count: int) -> Tensor:
        """Draws candidates among the sums of all beams, `[B * V]` float32."""
        if self._torch_draws is None:
            key = random.keys([self.first.choosing.seed], [len(self.first.token_ids)])
            return without_replacement(sums, count, key)
        return self._torch_draws.draw_several(sums, count, self.first.num_new_tokens)

    def _result(self, index: int, hypothesis: Hypothesis) -> SequenceTokens:
        steps = hypothesis.path.steps()
        token_ids = [step.token_id for step in steps]
        self.first.token_ids[self.first.num_prompt_tokens :] = token_ids  # for the stop string
        finish = msgspec.structs.replace(
            self.first.finish(hypothesis.reason),
            sequence_score=hypothesis.score,
            beam_indices=[step.beam for step in steps],
        )
        scores = [step.scores for step in steps if step.scores is not None]
        return self._event(index, token_ids, scores, finish)

    def _failed(self, index: int, failure: Failure) -> SequenceTokens:
        arguments = failure.arguments
        if "row" in arguments:
            arguments = {**arguments, "row": self.first.row + index}
        finish = self.first.finish("error", Failure(failure.error, arguments))
        return self._event(index, [], [], finish)

    def _event(
        self, index: int, token_ids: list[int], scores: list[PositionScores], finish: Finish
    ) -> SequenceTokens:
        return SequenceTokens(
            request_id=self.first.call.request_id,
            row=self.first.row + index,
            token_ids=token_ids,
            scores=scores,
            prompt_scores=list(self._prompt_scores),
            finish=finish,
        )
