"""Turns runs of tokens into logits: packs a step, calls the model, keeps the KV cache.

T: tokens of the step, R: rows of logits wanted, V: ids of the newest revision.
"""

from typing import cast

import torch
from torch import Tensor, nn

from model_service.engine import attention, linear, merged_linear
from model_service.engine.attention import Chunk, StepContext
from model_service.engine.kv_cache import KVCache
from model_service.engine.loader import LoadedModel, Refused
from model_service.engine.sequence import Run, Sequence
from model_service.engine.vocabulary import Vocabulary
from model_service.generation import GenerationConfig
from model_service.messages import EngineSettings

# Largest difference between the packed step and Hugging Face's own forward pass,
# relative to the largest logit.
SELF_TEST_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}

SELF_TEST_LENGTHS = (23, 9, 1)


class ModelRunner:
    """Owns the model, its KV cache and its vocabulary rows."""

    can_rewind = True

    def __init__(self, loaded: LoadedModel, settings: EngineSettings) -> None:
        self._model = loaded.model
        self._windows = loaded.windows
        num_slots = settings.max_running_sequences + settings.max_session_rows
        self.cache = KVCache(
            num_layers=loaded.config.num_hidden_layers,
            num_slots=num_slots,
            max_length=loaded.context_length,
            dtype=loaded.dtype,
        )
        self._embedding = cast(nn.Embedding, self._model.get_input_embeddings())
        embedding_rows = self._embedding.weight.shape[0]
        self._probe_prompts = probe_prompts(settings.vocabulary_size or embedding_rows)
        with merged_linear.observe(self._model) as siblings:
            expected = self._reference_logits()
        self.vocabulary = Vocabulary(
            self._model, settings.vocabulary_size, settings.reserved_vocabulary_rows
        )
        self.num_merged = merged_linear.merge(siblings)
        self.num_packed = linear.pack(self._model)
        self._model.set_attn_implementation(attention.NAME)
        self._self_test(expected, loaded.dtype)

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
        logits = self._call(context, ids, positions, slots, targets)
        for run in runs:
            run.sequence.advance(run.length, len(run.drafts))
        return logits

    def _call(
        self,
        context: StepContext,
        ids: list[int],
        positions: list[int],
        slots: list[int],
        targets: list[int],
    ) -> Tensor:
        device = self._embedding.weight.device
        packed = torch.tensor([ids, positions, slots], dtype=torch.int64).to(device)
        self.cache.set_places(packed[2], packed[1])
        with attention.use(context):
            output = self._model(
                input_ids=packed[0:1],
                position_ids=packed[1:2],
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=torch.tensor(targets, dtype=torch.int64, device=device),
            )
        logits: Tensor = output.logits
        return logits[0].float()

    @torch.inference_mode()
    def _reference_logits(self) -> list[Tensor]:
        """Runs prompts of several lengths one by one through the unchanged model."""
        device = self._embedding.weight.device
        expected = []
        for prompt in self._probe_prompts:
            ids = torch.tensor([prompt], device=device)
            expected.append(self._model(input_ids=ids, use_cache=False).logits[0, -1].float().cpu())
        return expected

    def _self_test(self, expected: list[Tensor], dtype: torch.dtype) -> None:
        """Compares the packed step, in chunks and with a decoding step, with Hugging Face's.

        Raises:
            Refused: they differ, or the model does not take a packed step.
        """
        size = self.vocabulary.size
        scale = max(float(logits.abs().max()) for logits in expected)
        try:
            results = self._probe()
        except Exception as error:
            raise Refused(
                f"{type(self._model).__name__} does not run on this server's attention: {error}"
            ) from error
        worst = max(
            float((result[:size].cpu() - logits[:size]).abs().max())
            for result, logits in zip(results, expected, strict=True)
        )
        if not worst <= SELF_TEST_TOLERANCE[dtype] * scale:
            raise Refused(
                f"{type(self._model).__name__} gives other logits here than in Hugging Face's own "
                f"forward pass (largest difference {worst:.3g} at a scale of {scale:.3g})."
            )

    def _probe(self) -> list[Tensor]:
        """Runs the probe prompts as one ragged batch: two chunks each, the last token alone."""
        sequences = []
        for prompt in self._probe_prompts:
            seq = Sequence(
                request_id=0,
                row=0,
                token_ids=list(prompt),
                config=GenerationConfig(max_new_tokens=1),
                seed=0,
                vocabulary_size=self.vocabulary.size,
                revision=0,
                max_length=len(prompt),
            )
            seq.slot = self.cache.allocate()
            sequences.append(seq)
        try:
            for cut in (5, 2, 1):
                runs = [
                    Run(seq, seq.num_pending - cut, ())
                    for seq in sequences
                    if seq.num_pending > cut
                ]
                if runs:
                    self.forward(order(runs))
            runs = order([Run(seq, 1, (0,)) for seq in sequences])
            logits = self.forward(runs)
            by_sequence = {id(run.sequence): row for run, row in zip(runs, logits, strict=True)}
            return [by_sequence[id(seq)] for seq in sequences]
        finally:
            for seq in sequences:
                assert seq.slot is not None
                self.cache.free(seq.slot, len(seq.token_ids))


def probe_prompts(vocabulary_size: int) -> list[list[int]]:
    """Returns the prompts of the self-test: fixed, of different length."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(vocabulary_size, (length,), generator=generator).tolist()
        for length in SELF_TEST_LENGTHS
    ]


def order(runs: list[Run]) -> list[Run]:
    """Sorts runs as `ModelRunner.forward` takes them: single tokens by slot, then the rest."""
    return sorted(runs, key=lambda run: (run.num_tokens > 1, _slot(run)))


def _slot(run: Run) -> int:
    slot = run.sequence.slot
    assert slot is not None, "A scheduled sequence has no slot. This is a bug."
    return slot
