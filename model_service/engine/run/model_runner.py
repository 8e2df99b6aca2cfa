"""Turns runs of tokens into logits: packs a step, calls the model, keeps the KV cache.

T: tokens of the step, R: rows of logits wanted, V: ids of the newest revision.
"""

from typing import Literal

import torch
from torch import Tensor

from model_service.engine.layers import linear, merged_linear, placement
from model_service.engine.layers.merged_linear import SiblingLayers
from model_service.engine.load.loader import LoadedModel, layer_windows
from model_service.engine.run import attention, kv_memory
from model_service.engine.run.attention import Chunk, StepContext
from model_service.engine.run.decode_graph import comparison
from model_service.engine.run.decode_graph.decode_graphs import DecodeGraphs
from model_service.engine.run.kv_cache import KVCache
from model_service.engine.run.kv_pages import PagedKVCache
from model_service.engine.schedule import sequence_cache
from model_service.engine.sequences.run import Run
from model_service.engine.vocabulary.vocabulary import Vocabulary
from model_service.protocol import EngineSettings


class ModelRunner:
    """Owns the model, its KV cache and its vocabulary rows.

    Attributes:
        cache: keys and values.
        vocabulary: rows of the embedding and the head.
        graphs: steps compiled ahead of time.
        compiled: whether the last step ran as one of them.
    """

    name: Literal["fast"] = "fast"
    takes_drafts = True

    def __init__(
        self, loaded: LoadedModel, settings: EngineSettings, siblings: SiblingLayers
    ) -> None:
        """Takes over a model.

        Args:
            loaded: the model, unchanged.
            settings: the engine's.
            siblings: linear layers that were seen to read the same input.
        """
        self._model = loaded.model
        self._config = loaded.config
        self.read_windows()
        self.cache = _cache(loaded, settings)
        self._embedding = loaded.embedding
        self._is_on_one_gpu = loaded.is_on_one_gpu
        self.vocabulary = Vocabulary(
            self._model, settings.vocabulary_size, settings.reserved_vocabulary_rows
        )
        self.num_merged = merged_linear.merge(siblings)
        self.num_packed = linear.pack(self._model)
        self._model.set_attn_implementation(attention.NAME)
        if self._config._attn_implementation != attention.NAME:
            raise NotImplementedError("it does not take another attention function")
        self.graphs = DecodeGraphs(self._model, self)
        self.compiled = False

    def read_windows(self) -> None:
        """Reads the windows of the layers from the model's configuration."""
        self._windows = layer_windows(self._config)

    @torch.inference_mode()
    def forward(self, runs: list[Run]) -> Tensor:
        """Passes the pending tokens of runs through the model and caches them.

        Args:
            runs: one-token runs first, by ascending slot; every sequence has a slot.

        Returns:
            `[R, V]` float32 on the sampler's device: the targets of the first run, then of the
            second, and so on.
        """
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        targets: list[int] = []
        chunks: list[Chunk] = []
        decoding = [run for run in runs if run.num_tokens == 1]
        for run in runs:
            start, seq = len(ids), run.sequence
            end = seq.num_cached + run.length
            self.cache.claim(_slot(run), seq.num_cached, seq.num_cached + run.num_tokens)
            ids += (*seq.token_ids[seq.num_cached : end], *run.drafts)
            positions += range(seq.num_cached, seq.num_cached + run.num_tokens)
            slots += [_slot(run)] * run.num_tokens
            targets += [start + target for target in run.targets]
            if run.num_tokens > 1:
                chunks.append(Chunk(start, len(ids), _slot(run), seq.num_cached))
        context = StepContext(
            cache=self.cache,
            decode_slots=[_slot(run) for run in decoding],
            decode_lengths=[run.sequence.num_cached + 1 for run in decoding],
            chunks=chunks,
            windows=self._windows,
        )
        graph = self.graphs.choose(runs)
        self.compiled = graph is not None
        logits = self._call(context, graph, ids, positions, slots, targets)
        for run in runs:
            run.sequence.advance(run.length, len(run.drafts))
        return logits

    def _call(
        self,
        context: StepContext,
        graph: str | None,
        ids: list[int],
        positions: list[int],
        slots: list[int],
        targets: list[int],
    ) -> Tensor:
        device = placement.input_device(self._embedding)
        packed = torch.tensor([ids, positions, slots], dtype=torch.int64)
        packed = packed.to(device, non_blocking=True)
        self.cache.set_places(packed[2], packed[1])
        with attention.use(context), self.graphs.use(graph, packed):
            output = self._model(
                input_ids=packed[0:1],
                position_ids=packed[1:2],
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=self._kept(targets, packed),
            )
        logits: Tensor = output.logits
        return self.vocabulary.mask(logits[0].float())

    def _kept(self, targets: list[int], packed: Tensor) -> int | list[int] | Tensor:
        """Says which of a step's tokens get logits, as Hugging Face's code takes it."""
        if len(targets) == packed.shape[1]:
            return 0  # all
        if not self._is_on_one_gpu:
            return targets  # a tensor would have to be where the last layer is
        return torch.tensor(targets, dtype=torch.int64).to(packed.device, non_blocking=True)


def _cache(loaded: LoadedModel, settings: EngineSettings) -> KVCache:
    num_layers, num_slots = loaded.config.num_hidden_layers, sequence_cache.num_slots(settings)
    on_cpu = loaded.is_on_cpu
    num_pages = None if on_cpu else kv_memory.fitting_pages(loaded, settings, num_slots)
    if num_pages is None:
        return KVCache(
            num_layers=num_layers,
            num_slots=num_slots,
            num_spare=len(comparison.LENGTHS) if on_cpu else 0,
            max_length=loaded.context_length,
            dtype=loaded.dtype,
        )
    return PagedKVCache(
        num_layers=num_layers,
        num_slots=num_slots,
        num_pages=num_pages,
        max_length=loaded.context_length,
        dtype=loaded.dtype,
    )


def order(runs: list[Run]) -> list[Run]:
    """Sorts runs as `ModelRunner.forward` takes them: single tokens by slot, then the rest."""
    return sorted(runs, key=lambda run: (run.num_tokens > 1, _slot(run)))


def _slot(run: Run) -> int:
    slot = run.sequence.slot
    assert slot is not None, "A scheduled sequence has no slot. This is a bug."
    return slot
