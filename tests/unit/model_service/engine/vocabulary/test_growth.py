"""What revisions cost the steps between which they arrive."""

import time

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from model_service.engine.layers import growing_embedding
from model_service.engine.vocabulary import growth
from model_service.engine.vocabulary.growth import Growth
from model_service.engine.vocabulary.vocabulary import Vocabulary
from model_service.protocol import Event, GrowVocabulary, NewRow, Rejected, VocabularyGrown

SIZE, WIDTH = 40, 16


class Growing:
    """A growth and what it says."""

    def __init__(self, reserved_rows: int = 8) -> None:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=SIZE,
            hidden_size=WIDTH,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=True,
        )
        self.model = LlamaForCausalLM(config)
        self.events: list[Event] = []
        self.vocabulary = Vocabulary(self.model, SIZE, reserved_rows)
        self.growth = Growth(self.vocabulary, self.events.append)

    def request(self, revision: int, count: int = 1, **values: object) -> None:
        start = self.vocabulary.size
        values = {"initialization": "mean", "generable": False} | values
        rows = [NewRow(token_id=start + index, **values) for index in range(count)]
        self.growth.request(GrowVocabulary(revision, rows, request_id=revision))

    def finish(self) -> int:
        """Advances to the end. Returns how often it took."""
        count = 0
        while self.growth.is_busy:
            self.growth.advance()
            count += 1
        return count


@pytest.fixture
def slow_copies(monkeypatch):
    """Copies of 10 ms for three rows each."""
    monkeypatch.setattr(growing_embedding, "SLICE_BYTES", WIDTH * 4 * 3)
    add = growing_embedding.GrowingEmbedding.enlarge

    def enlarge(self, num_rows):
        for _ in add(self, num_rows):
            time.sleep(0.01)
            yield

    monkeypatch.setattr(growing_embedding.GrowingEmbedding, "enlarge", enlarge)


def test_a_revision_within_the_reserve_is_there_at_once():
    growing = Growing()
    growing.request(1, 2)
    (event,) = growing.events
    assert isinstance(event, VocabularyGrown)
    assert (event.request_id, event.revision, event.size) == (1, 1, SIZE + 2)
    assert event.reserved_rows == 6
    assert event.added_rows_sha256 == growing.vocabulary.added_rows_sha256


def test_a_revision_beyond_the_reserve_waits_while_steps_go_on(slow_copies):
    growing = Growing()
    start = time.monotonic()
    growing.request(1, 20)
    longest = time.monotonic() - start
    assert not growing.events
    while growing.growth.is_busy:
        start = time.monotonic()
        growing.growth.advance()
        longest = max(longest, time.monotonic() - start)
        if not growing.events:
            assert growing.vocabulary.size == SIZE
    (event,) = growing.events
    assert event.size == SIZE + 20
    assert 0.01 <= event.pause_s <= longest


def test_the_pause_is_the_longest_stretch_and_not_the_sum(slow_copies):
    growing = Growing()
    start = time.monotonic()
    growing.request(1, 20)
    assert growing.finish() > 5
    assert 0.01 <= growing.events[0].pause_s < (time.monotonic() - start) / 3


def test_revisions_that_share_a_pause_share_its_time(monkeypatch):
    growing = Growing()
    values = growing.vocabulary._rules.values

    def slow(row):
        time.sleep(0.001)
        return values(row)

    monkeypatch.setattr(growing.vocabulary._rules, "values", slow)
    start = time.monotonic()
    for index in range(6):
        new = NewRow(SIZE + index, initialization="mean", generable=False)
        growing.growth.request(GrowVocabulary(index + 1, [new], request_id=index + 1))
    growing.finish()
    elapsed_s = time.monotonic() - start
    assert len(growing.events) == 6
    assert 0.006 <= sum(event.pause_s for event in growing.events) <= elapsed_s


def test_room_is_made_before_it_is_needed_and_counts_as_a_pause(slow_copies):
    growing = Growing()
    growing.request(1, 7)
    assert len(growing.events) == 1
    assert growing.growth.is_busy
    assert growing.finish() > 5
    assert growing.vocabulary.num_reserved >= 8
    growing.request(2)
    assert growing.events[1].pause_s >= 0.01
    growing.request(3)
    assert growing.events[2].pause_s < 0.01


def test_a_slow_piece_of_work_shows_in_the_pause(monkeypatch):
    growing = Growing()
    values = growing.vocabulary._rules.values

    def slow(row):
        time.sleep(0.03)
        return values(row)

    monkeypatch.setattr(growing.vocabulary._rules, "values", slow)
    growing.request(1, 3)
    growing.finish()
    assert 0.03 <= growing.events[0].pause_s < 0.06


def test_revisions_that_arrive_together_are_applied_in_order(slow_copies):
    growing = Growing()
    for revision in (1, 2, 3):
        start = SIZE + 20 * (revision - 1)
        rows = [NewRow(start + index, "mean", generable=False) for index in range(20)]
        growing.growth.request(GrowVocabulary(revision, rows, request_id=revision))
    growing.finish()
    assert [event.revision for event in growing.events] == [1, 2, 3]


def test_revisions_that_arrive_between_the_same_two_steps_share_the_time_of_one(monkeypatch):
    growing = Growing(reserved_rows=100)
    values = growing.vocabulary._rules.values

    def slow(row):
        time.sleep(0.01)
        return values(row)

    monkeypatch.setattr(growing.vocabulary._rules, "values", slow)
    start = time.monotonic()
    for revision in range(1, 11):
        row = NewRow(SIZE + revision - 1, "mean", generable=False)
        growing.growth.request(GrowVocabulary(revision, [row], request_id=revision))
    assert time.monotonic() - start < 0.05
    steps = growing.finish()
    assert [event.revision for event in growing.events] == list(range(1, 11))
    assert steps >= 9
    assert max(event.pause_s for event in growing.events) < 0.05


def test_what_does_not_fit_is_refused_with_the_reason_and_growth_goes_on():
    growing = Growing()
    growing.request(1, initialization="values", input_values=b"\0" * 12)
    (event,) = growing.events
    assert isinstance(event, Rejected)
    assert event.failure.error == "InvalidField"
    assert "has 3 values, but a row of this model has 16" in event.failure.arguments["description"]
    growing.request(1)
    assert isinstance(growing.events[1], VocabularyGrown)


def test_without_memory_a_revision_is_refused_and_can_be_asked_for_again(monkeypatch):
    growing = Growing()

    def fails(self, *shape):
        raise RuntimeError("can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "new_empty", fails)
        growing.request(1, 20)
        assert growing.events[0].failure.error == "InternalError"
        growing.request(1, 7)  # within the reserve; room for later ones cannot be made
        growing.finish()
    assert isinstance(growing.events[1], VocabularyGrown)
    growing.request(2, 20)
    growing.finish()
    assert growing.events[2].size == SIZE + 27


def test_slices_end_after_their_time(monkeypatch):
    monkeypatch.setattr(growth, "SLICE_S", 1e-9)
    growing = Growing()
    growing.request(1, 5)
    assert not growing.events
    assert growing.finish() == 6  # a row each, and the swap; the first was done at once
    assert len(growing.events) == 1
