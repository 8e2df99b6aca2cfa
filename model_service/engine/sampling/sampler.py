"""Chooses the next token of every row of a step.

Rows are independent: each is checked, processed and drawn by its own
configuration. Three ways lead to the same token, and the cheapest that is exact
is taken:

1. greedy rows: the arg-max;
2. sampled rows: the candidates of top-k first, and everything else on those;
3. any row whose full scores are wanted, whose configuration asks for more than
   the first two do (`coverage.py`), or that the second cannot decide exactly:
   Hugging Face's own classes (`processors.py`).

N: rows, K: candidates, V: ids of the newest revision.
"""

import logging
import secrets
from dataclasses import dataclass

import torch
from torch import Tensor

from model_service.engine.sampling import processors, random
from model_service.engine.sequence import Sequence
from model_service.engine.vocabulary import RevisionRows
from model_service.messages import Failure

logger = logging.getLogger(__name__)

# Candidates beyond which sorting them costs more than it saves.
MAX_CANDIDATES = 1024

# Distance from the edge of top-p within which two ways of adding up
# probabilities may disagree.
EDGE = 1e-5


@dataclass(frozen=True, slots=True)
class Draw:
    """One row to choose for.

    Attributes:
        sequence: whose next token.
        row: its row of logits.
        wants_scores: whether the full processed scores are needed afterwards.
    """

    sequence: Sequence
    row: int
    wants_scores: bool


@dataclass(slots=True)
class Choice:
    """The outcome for one row.

    Attributes:
        token_id: the token, or None on failure.
        scores: processed scores `[V]` when they were wanted.
        failure: why there is no token.
    """

    token_id: int | None = None
    scores: Tensor | None = None
    failure: Failure | None = None


class Sampler:
    """Stateless but for the vocabulary's revisions."""

    def __init__(self, revisions: list[RevisionRows]) -> None:
        """Reads sizes and forbidden ids from `revisions`, which grows in place."""
        self._revisions = revisions

    @torch.inference_mode()
    def choose(self, logits: Tensor, draws: list[Draw]) -> list[Choice]:
        """Chooses one token per draw.

        Args:
            logits: `[N, V]` float32, not modified.
            draws: the rows to choose for.
        """
        # A sum is finite only if all its terms are, and costs one pass.
        finite = torch.isfinite(logits.sum(-1)).tolist()
        choices = [Choice() for _ in draws]
        greedy: list[int] = []
        sampled: list[int] = []
        for index, draw in enumerate(draws):
            if not finite[draw.row] and not draw.sequence.config.remove_invalid_values:
                choices[index].failure = _failure("NonFiniteLogits", draw.sequence)
            elif draw.sequence.kind == "beam":
                choices[index] = self._score(logits[draw.row], draw.sequence)
            elif draw.wants_scores or not draw.sequence.covered:
                choices[index] = self._by_reference(logits[draw.row], draw.sequence)
            elif not draw.sequence.config.do_sample:
                greedy.append(index)
            else:
                sampled.append(index)
        self._choose_greedy(logits, draws, choices, greedy)
        self._choose_sampled(logits, draws, choices, sampled)
        return choices

    def _by_reference(self, logits: Tensor, seq: Sequence) -> Choice:
        """Chooses with Hugging Face's classes, from full scores."""
        choice = self._score(logits, seq)
        if choice.scores is None:
            return choice
        scores = choice.scores
        left = (scores > -torch.inf).nonzero()[:, 0]
        if len(left) == 0:
            return Choice(failure=_failure("NoTokenLeft", seq))
        if not seq.config.do_sample:
            return Choice(int(scores.argmax()), scores)
        keys = scores[left].double() + noise([seq], left[None])[0]
        return Choice(int(left[keys.argmax()]), scores)

    def _score(self, logits: Tensor, seq: Sequence) -> Choice:
        """Computes full scores with Hugging Face's classes, and chooses nothing."""
        revision = self._revisions[seq.revision]
        try:
            scores = processors.scores(seq, logits[: revision.size], revision.forbidden)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            # Not our code: whatever a processor cannot do must end its own row only.
            request_id = f"engine-{secrets.token_hex(8)}"
            logger.exception("A processor failed (request id %s)", request_id)
            return Choice(failure=Failure("InternalError", {"request_id": request_id}))
        if scores.isnan().any():
            return Choice(failure=_failure("NonFiniteLogits", seq))
        return Choice(scores=scores)

    def _choose_greedy(
        self, logits: Tensor, draws: list[Draw], choices: list[Choice], indices: list[int]
    ) -> None:
        plain = []
        for index in indices:
            seq = draws[index].sequence
            row = self._process(logits[draws[index].row], seq)
            if row is None:
                plain.append(index)
                continue
            token_id = int(row.argmax())
            if row[token_id] == -torch.inf:
                choices[index].failure = _failure("NoTokenLeft", seq)
            else:
                choices[index].token_id = token_id
        if plain:
            best = logits.argmax(-1).tolist()  # of every row: picking rows would copy them
            for index in plain:
                choices[index].token_id = best[draws[index].row]

    def _process(self, logits: Tensor, seq: Sequence) -> Tensor | None:
        """Applies what excludes or penalizes, `[V]` to `[size]`; None when nothing does.

        Equal to the processors before the warpers in `processors.build`, without
        rebuilding the sequence's ids as a tensor.
        """
        revision = self._revisions[seq.revision]
        config = seq.config
        spares_eos = seq.num_new_tokens < config.min_new_tokens and config.eos_token_ids
        whole = revision.size == len(logits)
        if config.repetition_penalty == 1.0 and not spares_eos and not revision.forbidden and whole:
            return None
        row = logits[: revision.size].clone()
        if config.repetition_penalty != 1.0:
            seen = torch.tensor(sorted(seq.distinct_token_ids()), device=row.device)
            values = row[seen]
            row[seen] = torch.where(
                values < 0, values * config.repetition_penalty, values / config.repetition_penalty
            )
        if spares_eos:
            row[[i for i in config.eos_token_ids if i < revision.size]] = -torch.inf
        if revision.forbidden:
            row[list(revision.forbidden)] = -torch.inf
        return row

    def _choose_sampled(
        self, logits: Tensor, draws: list[Draw], choices: list[Choice], indices: list[int]
    ) -> None:
        """Groups rows of one width with top-k, decides them together, the rest by reference."""
        groups: dict[int, list[tuple[int, Tensor]]] = {}
        for index in indices:
            seq = draws[index].sequence
            config = seq.config
            if 0 < max(config.top_k, config.min_tokens_to_keep) < MAX_CANDIDATES and config.top_k:
                row = self._process(logits[draws[index].row], seq)
                row = logits[draws[index].row] if row is None else row
                groups.setdefault(len(row), []).append((index, row))
            else:
                choices[index] = self._by_reference(logits[draws[index].row], seq)
        for members in groups.values():
            sequences = [draws[index].sequence for index, _ in members]
            tokens = draw_from_candidates(torch.stack([row for _, row in members]), sequences)
            for (index, _), token_id in zip(members, tokens, strict=True):
                if token_id is None:
                    draw = draws[index]
                    choices[index] = self._by_reference(logits[draw.row], draw.sequence)
                else:
                    choices[index].token_id = token_id
        for index in indices:
            choices[index].scores = None


def draw_from_candidates(scores: Tensor, sequences: list[Sequence]) -> list[int | None]:
    """Applies temperature, top-k and top-p to the highest-scored ids and draws.

    A row is decided only if it is certain that full sorting gives the same set:
    the ties of the k-th value lie within the candidates, and no candidate is so
    close to the edge of top-p that another order of additions could move it.

    Args:
        scores: `[N, V]` float32 after the processors, modified in place.
        sequences: whose rows.

    Returns:
        One token per row, or None where the reference must decide.
    """
    configs = [seq.config for seq in sequences]
    device = scores.device
    scores /= torch.tensor([c.temperature for c in configs], device=device)[:, None]
    keep = torch.tensor([max(c.top_k, c.min_tokens_to_keep) for c in configs], device=device)
    keep = keep.clamp_max(scores.shape[-1])
    count = min(int(keep.max()) + 16, scores.shape[-1])  # room for ties
    values, ids = scores.topk(count)  # [N, K], descending
    threshold = values.gather(1, keep[:, None] - 1)
    kept = values >= threshold
    certain = (values[:, -1] < threshold[:, 0]) | (count == scores.shape[-1])

    top_p = torch.tensor([c.top_p for c in configs], device=device)
    probs = values.masked_fill(~kept, -torch.inf).softmax(-1)
    mass = probs.flip(-1).cumsum(-1).flip(-1)  # of a candidate and all below it
    limit = (1.0 - top_p)[:, None]
    minimum = torch.tensor([c.min_tokens_to_keep for c in configs], device=device)
    in_nucleus = (mass > limit) | (torch.arange(count, device=device) < minimum[:, None])
    in_nucleus |= (top_p >= 1.0)[:, None]
    near = ((mass - limit).abs() < EDGE) & kept & (top_p < 1.0)[:, None]
    cut = in_nucleus[:, :-1] & ~in_nucleus[:, 1:] & kept[:, 1:]
    tied = (cut & (values[:, :-1] == values[:, 1:])).any(-1)
    certain &= ~near.any(-1) & ~tied & (values[:, 0] > -torch.inf)

    keys = values.double() + noise(sequences, ids)
    keys = keys.masked_fill(~(kept & in_nucleus), -torch.inf)
    chosen = ids.gather(1, keys.argmax(-1, keepdim=True))[:, 0].tolist()
    return [
        token_id if sure else None for token_id, sure in zip(chosen, certain.tolist(), strict=True)
    ]


def noise(sequences: list[Sequence], token_ids: Tensor) -> Tensor:
    """Returns the noise of each sequence's next token, `[N, K]` float64."""
    device = token_ids.device
    seeds = torch.tensor([seq.seed for seq in sequences], dtype=torch.int64, device=device)
    positions = torch.tensor([len(seq.token_ids) for seq in sequences], device=device)
    return random.gumbel(seeds, positions, token_ids)


def _failure(error: str, seq: Sequence) -> Failure:
    return Failure(error, {"row": seq.row, "position": len(seq.token_ids)})
