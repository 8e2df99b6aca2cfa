import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from model_service.engine.run.page_table import (
    NOBODYS,
    PAGE_TOKENS,
    PageCopy,
    PageTable,
    most_tokens,
    pages_for,
    pages_of,
)

SLOTS, MAX_LENGTH = 6, 5 * PAGE_TOKENS + 3


def table(num_pages: int = 40) -> PageTable:
    return PageTable(num_slots=SLOTS, num_pages=num_pages, max_length=MAX_LENGTH)


def test_a_slot_gets_a_page_for_every_sixteen_tokens():
    pages = table()
    assert pages.claim(0, 0, 1) == []
    assert pages.claim(0, 1, PAGE_TOKENS) == []
    assert len(pages.pages(0)) == 1
    pages.claim(0, PAGE_TOKENS, 3 * PAGE_TOKENS + 1)
    assert len(pages.pages(0)) == 4
    assert pages.numbers[0, :4].tolist() == list(pages.pages(0))
    assert (pages.numbers[0, 4:] == NOBODYS).all()


def test_whole_pages_of_a_prefix_are_shared_and_the_rest_is_copied():
    pages = table()
    pages.claim(0, 0, 3 * PAGE_TOKENS)
    copies = pages.share(0, 1, 2 * PAGE_TOKENS + 5)
    assert pages.pages(1)[:2] == pages.pages(0)[:2]
    assert copies == [PageCopy(pages.pages(0)[2], pages.pages(1)[2], 5)]
    assert pages.pages(1)[2] != pages.pages(0)[2]


def test_a_prefix_of_whole_pages_copies_nothing():
    pages = table()
    pages.claim(0, 0, 2 * PAGE_TOKENS)
    assert pages.share(0, 1, 2 * PAGE_TOKENS) == []
    assert pages.pages(1) == pages.pages(0)


@pytest.mark.parametrize("writer", [0, 1])
def test_whoever_writes_to_a_shared_page_gets_one_of_its_own(writer):
    pages = table()
    pages.claim(0, 0, 2 * PAGE_TOKENS)
    pages.share(0, 1, 2 * PAGE_TOKENS)
    shared = pages.pages(0)
    copies = pages.claim(writer, PAGE_TOKENS + 3, PAGE_TOKENS + 4)
    assert copies == [PageCopy(shared[1], pages.pages(writer)[1], PAGE_TOKENS)]
    assert pages.pages(writer)[0] == shared[0]
    assert pages.pages(1 - writer) == shared
    assert pages.claim(1 - writer, PAGE_TOKENS, PAGE_TOKENS + 1) == []  # nobody else has it now


def test_a_shared_page_is_free_once_its_last_holder_has_gone():
    pages = table()
    pages.claim(0, 0, 2 * PAGE_TOKENS)
    pages.share(0, 1, PAGE_TOKENS)
    first, second = pages.pages(0)
    assert pages.release(0) == [second]
    assert pages.release(1) == [first]


def test_the_rows_that_changed_are_known():
    pages = table()
    pages.claim(2, 0, 1)
    assert pages.changed == {2}
    pages.changed.clear()
    pages.claim(2, 1, 2)
    assert pages.changed == set()
    pages.share(2, 4, 1)
    pages.release(2)
    assert pages.changed == {2, 4}


@pytest.mark.parametrize("tokens", [1, PAGE_TOKENS, 1000])
def test_pages_for_tokens_are_the_fewest_that_hold_them_in_any_slots(tokens):
    count = pages_for(tokens, SLOTS)
    assert most_tokens(count, SLOTS) >= tokens
    assert most_tokens(count - 1, SLOTS) < tokens


class Store(RuleBasedStateMachine):
    """Slots by what is in them: every token is a number of its own, and pages hold tokens.

    Claims obey what the scheduler promises: no more tokens than fit.
    """

    NUM_PAGES = pages_for(3 * MAX_LENGTH, SLOTS)
    operations = 0

    def __init__(self) -> None:
        super().__init__()
        self.pages = table(self.NUM_PAGES)
        self.memory = [[0] * PAGE_TOKENS for _ in range(self.NUM_PAGES)]
        self.slots: dict[int, list[int]] = {}
        self.claimed: dict[int, int] = {}
        self.next = 1

    def room(self) -> int:
        return most_tokens(self.NUM_PAGES, SLOTS) - sum(self.claimed.values())

    def carry_out(self, copies: list[PageCopy]) -> None:
        for copy in copies:
            self.memory[copy.target][: copy.length] = self.memory[copy.source][: copy.length]

    @precondition(lambda self: len(self.slots) < SLOTS)
    @rule(data=st.data())
    def open(self, data):
        room = min(self.room(), MAX_LENGTH)
        if room > 0:
            slot = min(set(range(SLOTS)) - set(self.slots))
            self.slots[slot], self.claimed[slot] = [], data.draw(st.integers(1, room))

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def write(self, data):
        slot = data.draw(st.sampled_from(sorted(self.slots)))
        tokens = self.slots[slot]
        start = data.draw(st.integers(0, len(tokens)))  # cut there, and go on
        end = data.draw(st.integers(start, self.claimed[slot]))
        self.carry_out(self.pages.claim(slot, start, end))
        del tokens[start:]
        for position in range(start, end):
            self.memory[self.pages.pages(slot)[position // PAGE_TOKENS]][position % PAGE_TOKENS] = (
                self.next
            )
            tokens.append(self.next)
            self.next += 1

    @precondition(lambda self: len(self.slots) > 1)
    @rule(data=st.data())
    def fork(self, data):
        source = data.draw(st.sampled_from(sorted(self.slots)))
        empty = [slot for slot, tokens in self.slots.items() if not tokens and slot != source]
        empty = [slot for slot in empty if not self.pages.pages(slot)]
        if empty:
            target = data.draw(st.sampled_from(empty))
            most = min(len(self.slots[source]), self.claimed[target])
            length = data.draw(st.integers(0, most))
            self.carry_out(self.pages.share(source, target, length))
            self.slots[target] = self.slots[source][:length]

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def close(self, data):
        slot = data.draw(st.sampled_from(sorted(self.slots)))
        for page in self.pages.release(slot):
            self.memory[page] = [0] * PAGE_TOKENS
        del self.slots[slot], self.claimed[slot]

    @invariant()
    def every_slot_reads_what_was_written_to_it(self):
        type(self).operations += 1
        for slot, tokens in self.slots.items():
            pages = self.pages.pages(slot)
            read = [token for page in pages for token in self.memory[page]]
            assert read[: len(tokens)] == tokens
            assert self.pages.numbers[slot, : len(pages)].tolist() == list(pages)

    @invariant()
    def no_page_is_lost_or_had_twice(self):
        held = {page for slot in range(SLOTS) for page in self.pages.pages(slot)}
        assert NOBODYS not in held
        assert len(held) + self.pages.num_free == self.NUM_PAGES - 1
        assert not any(self.memory[NOBODYS])

    def teardown(self) -> None:
        for slot in sorted(self.slots):
            self.pages.release(slot)
        assert self.pages.num_free == self.NUM_PAGES - 1
        assert (self.pages.numbers == NOBODYS).all()


@pytest.mark.parametrize(
    ("examples", "steps"),
    [pytest.param(40, 50, id="ci"), pytest.param(400, 50, id="full", marks=pytest.mark.full)],
)
def test_any_order_of_operations_loses_no_page_and_mixes_no_tokens(examples, steps):
    Store.operations = 0
    run_state_machine_as_test(
        Store,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Store.operations > 20 * examples
    assert pages_of(MAX_LENGTH) == 6
