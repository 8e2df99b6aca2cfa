import pytest
import torch

from model_service.engine.run.kv_pages import PagedKVCache
from model_service.engine.run.page_table import PAGE_TOKENS, pages_for

LAYERS, SLOTS, LENGTH, HEADS, SIZE = 2, 4, 64, 3, 8


@pytest.fixture
def cache() -> PagedKVCache:
    return PagedKVCache(
        num_layers=LAYERS,
        num_slots=SLOTS,
        num_pages=pages_for(2 * LENGTH, SLOTS),
        max_length=LENGTH,
        dtype=torch.float32,
    )


def write(cache: PagedKVCache, slot: int, start: int, end: int, value: float) -> None:
    cache.claim(slot, start, end)
    positions = torch.arange(start, end)
    cache.set_places(torch.full_like(positions, slot), positions)
    for layer in range(LAYERS):
        keys = torch.full((1, HEADS, end - start, SIZE), value + layer)
        cache.update(keys, -keys, layer)


def values(cache: PagedKVCache, slot: int, length: int, layer: int = 0) -> list[float]:
    part = cache.slot_layers[layer].v
    assert part is not None
    read = cache.read(part, slot, length)
    assert read.shape == (length, HEADS, SIZE)
    return [-float(token[0, 0]) for token in read]


def test_a_slot_reads_what_was_written_to_it(cache):
    write(cache, 1, 0, 20, 1.0)
    write(cache, 2, 0, 5, 7.0)
    write(cache, 1, 20, 21, 2.0)
    assert values(cache, 1, 21) == [1.0] * 20 + [2.0]
    assert values(cache, 2, 5, layer=1) == [8.0] * 5


def test_several_slots_are_read_at_once_and_end_in_zeros(cache):
    write(cache, 3, 0, 20, 1.0)
    write(cache, 0, 0, 5, 7.0)
    part = cache.slot_layers[0].k
    assert part is not None
    rows = cache.read_rows(part, torch.tensor([3, 0]), 20)
    assert rows.shape == (2, 20, HEADS, SIZE)
    assert (rows[0] == 1).all()
    assert (rows[1, :5] == 7).all()
    assert not rows[1, 5:].any()


def test_a_copy_has_the_first_tokens_and_nothing_else(cache):
    write(cache, 0, 0, 40, 1.0)
    cache.copy(0, 1, 18)
    assert values(cache, 1, 2 * PAGE_TOKENS) == [1.0] * 18 + [0.0] * (2 * PAGE_TOKENS - 18)


def test_what_is_written_to_a_copy_stays_out_of_its_source(cache):
    write(cache, 0, 0, 32, 1.0)
    cache.copy(0, 1, 32)
    write(cache, 1, 10, 20, 2.0)
    write(cache, 0, 32, 33, 3.0)
    assert values(cache, 0, 33) == [1.0] * 32 + [3.0]
    assert values(cache, 1, 32) == [1.0] * 10 + [2.0] * 10 + [1.0] * 12


def test_a_freed_slot_leaves_zeros_even_after_nan(cache):
    write(cache, 0, 0, 40, torch.nan)
    cache.copy(0, 1, 40)
    cache.free(0, 40)
    cache.free(1, 40)
    assert cache.table.num_free == cache.table.num_pages - 1
    for part in cache.parts:
        assert not part.data.any()


def test_a_copy_lives_on_when_its_source_is_freed(cache):
    write(cache, 0, 0, 40, 1.0)
    cache.copy(0, 1, 40)
    cache.free(0, 40)
    assert values(cache, 1, 40) == [1.0] * 40


def test_a_slot_that_is_copied_to_again_forgets_what_it_had(cache):
    write(cache, 0, 0, 20, 1.0)
    write(cache, 1, 0, 40, 2.0)
    cache.copy(0, 1, 20)
    assert values(cache, 1, 40) == [1.0] * 20 + [0.0] * 20


def test_bytes_per_token_count_all_layers(cache):
    write(cache, 0, 0, 1, 1.0)
    assert cache.bytes_per_token == LAYERS * 2 * HEADS * SIZE * 4
