"""Turns runs of tokens into logits by Hugging Face's own code, one sequence after the other.

For models that do not fit the fast path: without the attention interface, or
with layers whose past is not keys and values of every token. Each run is passed
to the model exactly as `generate` passes it, with a cache of the sequence's own.

V: ids of the newest revision.
"""

import copy
import inspect
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.utils import ALL_CACHE_NAMES

from model_service.engine.layers import placement
from model_service.engine.load.loader import LoadedModel
from model_service.engine.run.compat_cache import CompatCache, Past
from model_service.engine.run.decode_graph.decode_graphs import DecodeGraphs
from model_service.engine.schedule.sequence_cache import num_slots
from model_service.engine.sequences.run import Run
from model_service.engine.vocabulary.vocabulary import Vocabulary
from model_service.protocol import EngineSettings

# Length of the sequence whose cache is measured. Admission counts tokens; what a model keeps of a
# sequence at any length is spread over this many.
MEASURED_TOKENS = 128


class CompatRunner:
    """Owns a model, the caches of its sequences and its vocabulary rows.

    Attributes:
        cache: the caches.
        vocabulary: rows and revisions; grown between steps.
        extends: whether a past and several tokens give what all tokens at once give. If not, a
            prompt passes as a whole once all of it is due, and tokens after a past one by one,
            as in `generate`.
        graphs: none, on this path.
        compiled: False.
    """

    name: Literal["compat"] = "compat"
    takes_drafts = False  # not every cache can forget them

    def __init__(self, loaded: LoadedModel, settings: EngineSettings) -> None:
        self.extends = True
        self._model: Any = loaded.model
        self._parameters = set(inspect.signature(self._model.forward).parameters)
        self._max_length = loaded.context_length
        self._config = copy.deepcopy(self._model.generation_config)
        self._config.cache_implementation = None  # others than the dynamic one hold one batch only
        self.cache = CompatCache(
            num_slots=num_slots(settings),
            new=self._new_cache,
        )
        self._embedding = loaded.embedding
        self.graphs = DecodeGraphs(self._model, self)
        self.compiled = False
        self.vocabulary = Vocabulary(
            self._model, settings.vocabulary_size, settings.reserved_vocabulary_rows
        )

    def read_windows(self) -> None:
        """Does nothing: Hugging Face's code reads the configuration at every call."""

    def _new_cache(self) -> dict[str, Any]:
        """Makes the cache that `generate` would; none for a model that makes its own."""
        arguments: dict[str, Any] = {}
        self._model._prepare_cache_for_generation(
            self._config, arguments, GenerationMode.GREEDY_SEARCH, 1, self._max_length
        )
        return arguments

    @torch.inference_mode()
    def forward(self, runs: list[Run]) -> Tensor:
        """Passes the pending tokens of runs through the model and caches them.

        Args:
            runs: in any order; every sequence has a slot.

        Returns:
            `[R, V]` float32 on the device of the head: the targets of the first run, then of the
            second, and so on.
        """
        rows = [self._run_or_drop(run) for run in runs]
        for run in runs:
            run.sequence.advance(run.length)
        return torch.cat([part for part in rows if len(part)] or rows)

    def _run_or_drop(self, run: Run) -> Tensor:
        """Runs, and where that fails drops the cache, which may have the tokens in some layers."""
        try:
            return self._run(run)
        except Exception:
            assert run.sequence.slot is not None
            self.cache.drop(run.sequence.slot)
            raise

    def _run(self, run: Run) -> Tensor:
        """Returns the targets' logits of one run, `[targets, V]` float32."""
        seq = run.sequence
        assert seq.slot is not None, "A scheduled sequence has no slot. This is a bug."
        end = seq.num_cached + run.length
        targets = [seq.num_cached + target for target in run.targets]
        if not self.extends and not run.completes:
            return self._ahead(seq.token_ids[:end], targets)
        past = self.cache.past(seq.slot, seq.num_cached)
        start = past.length  # the tokens of a past that was dropped pass again
        if start == 0 or self.extends:
            return self._pass(past, seq.token_ids[:end], targets)
        rows = []
        for position in range(start, end):
            wanted = [target for target in targets if target == position]
            rows.append(self._pass(past, seq.token_ids[: position + 1], wanted))
        return torch.cat(rows)

    def _ahead(self, token_ids: list[int], targets: list[int]) -> Tensor:
        """Finds the logits of a part of a prompt that passes as a whole later."""
        if not targets:
            device = placement.input_device(self._embedding)  # where `_pass` leaves its own
            return torch.empty(0, self.vocabulary.size, device=device)
        return self._pass(Past(self._new_cache()), token_ids, targets)

    def _pass(self, past: Past, token_ids: list[int], targets: list[int]) -> Tensor:
        """Passes the tokens that are not in a past through the model.

        Args:
            past: gets their cache.
            token_ids: all tokens of the sequence up to the last to pass.
            targets: positions whose logits are wanted, ascending, none before the past's end.
        """
        length = len(token_ids) - past.length
        first = targets[0] if targets else len(token_ids) - 1
        device = placement.input_device(self._embedding)
        arguments: dict[str, Any] = {**past.arguments, "use_cache": True}
        if "position_ids" in self._parameters:
            arguments["position_ids"] = torch.arange(len(token_ids), device=device)[None]
        if "logits_to_keep" in self._parameters:
            arguments["logits_to_keep"] = len(token_ids) - first
        inputs = self._model.prepare_inputs_for_generation(
            torch.tensor([token_ids], device=device),
            next_sequence_length=length,
            is_first_iteration=past.length == 0,
            attention_mask=None,
            **arguments,
        )
        output = self._model(**inputs, return_dict=True)
        past.arguments = {
            name: output[name] for name in ALL_CACHE_NAMES if output.get(name) is not None
        }
        past.length = len(token_ids) if past.arguments else 0
        logits: Tensor = output.logits[0].float()
        offset = len(token_ids) - len(logits)
        return self.vocabulary.mask(logits[[target - offset for target in targets]])

    @torch.inference_mode()
    def measure(self) -> None:
        """Finds out what a token takes, and whether a past can be cut.

        States of fixed size count for `MEASURED_TOKENS`.
        """
        length = min(MEASURED_TOKENS, self._max_length)
        past = Past(self._new_cache())
        self._pass(past, [0] * length, [])
        self.cache.bytes_per_token = max(1, -(-past.num_bytes // length))
        self.cache.cuts_freely = past.cut(length // 2) and not past.has_windows
