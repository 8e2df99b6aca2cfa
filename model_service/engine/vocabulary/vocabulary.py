"""The revisions of the vocabulary, and the rows of embedding and head that go with them.

V: ids of revision 0, E: width of an embedding row, H: width of an output row.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model_service.engine.layers import placement
from model_service.engine.layers.growing_embedding import GrowingEmbedding
from model_service.engine.layers.growing_head import GrowingHead
from model_service.engine.vocabulary.row_rules import RowRules, Values
from model_service.protocol import NewRow

# The next buffer is begun when less than this part of what was reserved is left.
EARLY_PART = 4

# Where the reserve is small, buffers grow by this part of their size.
GROWTH_PART = 8


@dataclass(frozen=True, slots=True)
class RevisionRows:
    """What a request of one revision may see.

    Attributes:
        size: ids.
        forbidden: ids that must not be generated.
        token_bytes: the bytes that ids stand for, as far as they are known yet.
    """

    size: int
    forbidden: tuple[int, ...]
    token_bytes: Mapping[int, bytes] = field(default_factory=dict)


class Vocabulary:
    """The embedding and head rows of every revision so far. One thread uses it.

    Attributes:
        num_rows: rows of the checkpoint's embedding.
        base_size: ids at revision 0.
        num_usable: ids of revision 0 that have rows, the first ones. A tokenizer may have more:
            no request may hold those, and they are never generated. Row numbers are ids, so those
            of the ids that are added begin behind them.
        tied: whether output rows are the input rows.
        obstacle: why ids cannot be added, or None.
        token_bytes: the bytes that ids stand for, as far as they were told.
        revisions: what requests of each revision may see; grows in place.
    """

    def __init__(self, model: PreTrainedModel, base_size: int, reserved_rows: int) -> None:
        """Takes over a model's embedding and head.

        Args:
            model: the model, whose head is replaced.
            base_size: ids at revision 0; 0 means the rows of the embedding.
            reserved_rows: rows kept free.

        Raises:
            ValueError: its rows cannot grow.
        """
        check_can_grow(model, base_size)
        embedding = cast(nn.Embedding, model.get_input_embeddings())
        head = cast(nn.Linear, model.get_output_embeddings())
        self.num_rows = embedding.weight.shape[0]
        self.base_size = base_size or self.num_rows
        placement.keep_resident(embedding)
        placement.keep_resident(head)
        self.tied = _is_tied(model)
        self._shared = self.tied and head.weight.device == embedding.weight.device
        self.num_usable = min(self.base_size, self.num_rows, len(head.weight))
        self._embedding = GrowingEmbedding(embedding, self.base_size, reserved_rows)
        output = self._embedding.rows if self._shared else head.weight.detach()
        self._head = GrowingHead(
            output[: self.num_usable], head.bias, reserved_rows, self.base_size
        )
        placement.carry_hook(head, self._head)
        model.set_output_embeddings(self._head)
        without_rows = range(self.num_usable, self.base_size)
        self._rules = RowRules(self._embedding, self._head, without_rows, tied=self.tied)
        self.obstacle: str | None = None
        self._enlargement: Iterator[None] | None = None
        self._hash = hashlib.sha256()
        self.token_bytes: dict[int, bytes] = {}
        self.revisions = [RevisionRows(self.base_size, tuple(without_rows), self.token_bytes)]

    @property
    def size(self) -> int:
        """Ids of the newest revision."""
        return self.revisions[-1].size

    @property
    def revision(self) -> int:
        """The newest revision."""
        return len(self.revisions) - 1

    @property
    def num_reserved(self) -> int:
        """Rows that can be added before more memory is allocated."""
        return self._embedding.num_reserved

    @property
    def added_rows_sha256(self) -> str:
        """Hash over all added rows as float32, by id: input row, output row, bias if any."""
        return self._hash.hexdigest()

    def grow(self, revision: int, rows: list[NewRow]) -> None:
        """Appends one revision at once. As `growing`."""
        for _ in self.growing(revision, rows):
            pass

    def growing(self, revision: int, rows: list[NewRow]) -> Iterator[None]:
        """Appends one revision, a slice of work at a time; between two of them steps may run.

        Until the last slice, and when one fails, nothing is changed.

        Raises:
            ValueError: the revision or an id is not the next one, or the rows cannot be made.
            RuntimeError: memory is not sufficient.
        """
        if revision != self.revision + 1:
            raise ValueError(f"revision {revision} does not follow {self.revision}")
        if rows and self.obstacle is not None:
            raise ValueError(self.obstacle)
        prepared = []
        for index, row in enumerate(rows):
            if row.token_id != self.size + index:
                raise ValueError(f"id {row.token_id} does not follow {self.size + index - 1}")
            prepared.append(self._rules.values(row))
            yield
        while self.num_reserved < len(rows):
            self.make_room(len(rows))
            yield
        self._head.reserve(len(rows))
        self._append(rows, prepared)

    @property
    def is_short(self) -> bool:
        """Whether it is time to make room, before it is needed."""
        return self._enlargement is not None or (
            self.num_reserved < self._embedding.reserve // EARLY_PART
        )

    def make_room(self, count: int = 0) -> None:
        """Does a slice of work on a larger buffer, or puts it in place of the old one.

        Args:
            count: rows that are about to be added.

        Raises:
            RuntimeError: memory is not sufficient. Nothing is changed.
        """
        if self._enlargement is None:
            room = max(count, self._embedding.reserve, self.size // GROWTH_PART)
            self._enlargement = self._embedding.enlarge(self.size + room)
        try:
            next(self._enlargement)
        except StopIteration:
            self._enlargement = None
            if self._shared:
                self._head.rebase(self._embedding.rows[: self.num_usable])
        except BaseException:
            self._enlargement = None
            raise

    def mask(self, logits: Tensor) -> Tensor:
        """Masks ids without rows in logits `[.., V]` float32, in place, and returns the logits."""
        if self.num_usable < self.base_size:
            logits[..., self.num_usable : self.base_size] = -torch.inf
        return logits

    def spell(self, token_bytes: Sequence[bytes]) -> None:
        """Takes note of the bytes that the ids of revision 0 stand for."""
        self.token_bytes.update(enumerate(token_bytes))

    def shrink_to_base(self) -> None:
        """Forgets every revision but the first: after growth was tried, before it is used."""
        self._embedding.shrink(self.base_size)
        self._head.shrink_to_base()
        self._hash = hashlib.sha256()
        for added in [token_id for token_id in self.token_bytes if token_id >= self.base_size]:
            del self.token_bytes[added]
        del self.revisions[1:]

    def _append(self, rows: list[NewRow], prepared: list[Values]) -> None:
        """Makes a revision of rows for which there is room."""
        for values in prepared:
            self._embedding.add(values.input)
            self._head.add(values.output, values.bias)
            self._hash.update(_little_endian(values.input) + _little_endian(values.output))
            if self._head.bias is not None:
                self._hash.update(_little_endian(values.bias))
        last = self.revisions[-1]
        forbidden = tuple(row.token_id for row in rows if not row.generable)
        self.token_bytes.update((row.token_id, row.token_bytes) for row in rows)
        self.revisions.append(
            RevisionRows(last.size + len(rows), (*last.forbidden, *forbidden), self.token_bytes)
        )


def check_can_grow(model: PreTrainedModel, base_size: int) -> None:
    """Checks that a model has rows for its ids at both ends, and that rows can be added.

    A few ids may have none, as the image token of Gemma's tokenizer in a model for text.

    Args:
        model: the model.
        base_size: ids at revision 0; 0 means the rows of the embedding.

    Raises:
        ValueError: it does not.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None:
        raise ValueError("it has no separate output layer that could grow")
    wanted = base_size or cast(nn.Embedding, embedding).num_embeddings
    for name, layer in (("embedding", embedding), ("output layer", head)):
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.is_floating_point():
            raise ValueError(f"its {name} has no rows of numbers to which others could be added")
        if 2 * len(weight) < wanted:
            raise ValueError(
                f"its {name} has {len(weight)} rows, not even half of the {wanted} ids of its "
                "tokenizer.json: resize the model with resize_token_embeddings, or take the "
                "tokenizer that belongs to it"
            )


def _is_tied(model: PreTrainedModel) -> bool:
    """Whether output rows are the input rows, be it as a copy in another place."""
    inputs = cast(nn.Embedding, model.get_input_embeddings()).weight
    outputs = cast(nn.Linear, model.get_output_embeddings()).weight
    if inputs.data_ptr() == outputs.data_ptr():
        return True
    says_so = getattr(model.config.get_text_config(decoder=True), "tie_word_embeddings", False)
    return bool(says_so) and torch.equal(inputs.detach().cpu(), outputs.detach().cpu())


def _little_endian(values: Tensor) -> bytes:
    return values.float().cpu().contiguous().numpy().astype("<f4").tobytes()
