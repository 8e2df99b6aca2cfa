import psutil
import torch

from model_service.engine.run.kv_cache import KVCache


def filled(length: int = 40, slots: int = 4) -> KVCache:
    cache = KVCache(num_layers=2, num_slots=slots, max_length=64, dtype=torch.float32)
    slot = torch.ones(length, dtype=torch.int64)
    cache.set_places(slot, torch.arange(length))
    for layer in range(2):
        keys = torch.full((1, 3, length, 8), float(layer + 1))
        cache.update(keys, -keys, layer)
    return cache


def test_keys_and_values_land_in_their_slot_and_place():
    cache = filled()
    assert (cache.layers[1].k.data[1, :40] == 2).all()
    assert (cache.layers[1].v.data[1, :40] == -2).all()
    assert (cache.layers[0].k.data[0] == 0).all()
    assert (cache.layers[0].k.data[1, 40:] == 0).all()


def test_a_freed_slot_reads_as_zeros_even_after_nan():
    cache = filled()
    cache.layers[0].k.data[1, 5] = torch.nan
    cache.free(1, 40)
    for layer in cache.layers:
        assert (layer.k.data == 0).all()
        assert (layer.v.data == 0).all()


def test_freeing_a_slot_leaves_its_neighbors_alone():
    cache = filled()
    for layer in cache.layers:
        layer.k.data[0], layer.k.data[2] = 7, 8
    cache.free(1, 40)
    for layer in cache.layers:
        assert (layer.k.data[0] == 7).all()
        assert (layer.k.data[2] == 8).all()


def test_the_lowest_free_slot_is_taken_first():
    cache = filled()
    assert [cache.allocate() for _ in range(3)] == [0, 1, 2]
    cache.free(1, 0)
    cache.free(0, 0)
    assert [cache.allocate() for _ in range(3)] == [0, 1, 3]


def test_memory_is_taken_when_written_and_given_back_when_freed():
    process = psutil.Process()
    cache = KVCache(num_layers=1, num_slots=64, max_length=8192, dtype=torch.float32)
    before = process.memory_info().rss
    length = 8192
    cache.set_places(torch.zeros(length, dtype=torch.int64), torch.arange(length))
    keys = torch.ones(1, 4, length, 64)
    cache.update(keys, keys, 0)
    size = 2 * keys.nbytes
    written = process.memory_info().rss
    assert size * 0.9 < written - before < size * 2.1  # the source tensor counts too
    cache.free(0, length)
    assert written - process.memory_info().rss > size * 0.9


def test_bytes_per_token_count_all_layers():
    assert filled().bytes_per_token == 2 * 2 * 3 * 8 * 4


def test_a_copy_has_the_first_tokens_and_nothing_else():
    cache = filled()
    cache.copy(1, 3, 2)
    for index, layer in enumerate(cache.slot_layers):
        for part, value in ((layer.k, index + 1), (layer.v, -index - 1)):
            assert (part.data[3, :2] == value).all()
            assert not part.data[3, 2:].any()
            assert (part.data[1, :40] == value).all()
            assert not part.data[[0, 2]].any()
