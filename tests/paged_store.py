"""The page store of GPUs in an engine on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from model_service.engine.load.loader import LoadedModel
from model_service.engine.run import kv_memory, model_runner
from model_service.engine.run.kv_pages import PagedKVCache
from model_service.engine.run.page_table import pages_for
from model_service.engine.schedule import sequence_cache
from model_service.protocol import EngineSettings


@contextmanager
def in_pages() -> Iterator[None]:
    """Gives engines that are started in the block pages for as many tokens as they want."""
    with mock.patch.object(model_runner, "_cache", _paged):
        yield


def _paged(loaded: LoadedModel, settings: EngineSettings) -> PagedKVCache:
    num_slots = sequence_cache.num_slots(settings)
    return PagedKVCache(
        num_layers=loaded.config.num_hidden_layers,
        num_slots=num_slots,
        num_pages=pages_for(kv_memory.wanted_tokens(settings, loaded), num_slots),
        max_length=loaded.context_length,
        dtype=loaded.dtype,
    )
