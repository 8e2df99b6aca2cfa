"""Tries a runner before it is served: it must give what `generate` gives, or it is refused.

What `generate` gives is found out once, with the unchanged model. Then the
runner takes the same tokens as it will in operation: in chunks, in one ragged
batch, token by token, forked, cut back and with a grown vocabulary, on the
devices where the model is. Windows of attention are longer than any prompt that
could be tried at start, so all of it is done again with short ones.

V: ids of revision 0.
"""

import contextlib
import logging
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from model_service.engine.layers import masked_logits
from model_service.engine.load.loader import DoesNotFit, LoadedModel, Refused, Unavailable
from model_service.engine.run.runner import CachingRunner
from model_service.engine.sampling import row_failure
from model_service.engine.trial import oracle
from model_service.engine.trial.oracle import Example
from model_service.engine.trial.trial import Trial

# Largest difference from the logits of `generate`, relative to the largest of them. Rounding alone
# gives SmolLM2 a hundredth of the first, and a quarter of the others.
LARGEST = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}

# Mean difference of a row, relative to the standard deviation of its logits: what is computed
# wrongly moves all of them, and rounding moves most of them little.
MEAN = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 0.05}

# Both for weights in int8. Unrelated logits would differ by 1.1 of their deviation, and SmolLM2,
# which texts make surer than the random tokens of the trial, differs by 0.5 in its worst row.
ROUNDED_LARGEST = 0.25
ROUNDED_MEAN = 0.8

logger = logging.getLogger(__name__)


class SelfTest:
    """Knows what the unchanged model gives, and compares runners with it."""

    def __init__(self, loaded: LoadedModel, vocabulary_size: int) -> None:
        """Runs `generate`.

        Args:
            loaded: the model as it was loaded.
            vocabulary_size: ids that exist; 0 means one per row of the embedding.

        Raises:
            Refused: it does not run, or its logits are NaN or infinite.
        """
        self._name = type(loaded.model).__name__
        self._largest, self._mean = LARGEST[loaded.dtype], MEAN[loaded.dtype]
        rows = loaded.num_embedding_rows
        size = min(vocabulary_size or rows, rows)
        try:
            self._examples = oracle.examples(loaded, size)
            self._short: list[Example] = []
            if oracle.has_windows(loaded.config):
                with oracle.short_windows(loaded.config):
                    self._short = oracle.examples(loaded, size)
        except Exception as error:
            raise Refused(
                f"{self._name} does not generate in Hugging Face's own code: "
                f"{type(error).__name__}: {error}"
            ) from error
        oracle.try_last_position(loaded)
        for example in (*self._examples, *self._short):
            if not bool(example.logits.amax(-1).isfinite().all()):  # NaN is the highest of all
                raise Refused(
                    f"{self._name} gives NaN or infinite logits as {loaded.dtype}, also in Hugging "
                    "Face's own code: its weights are damaged, or the type is too small for it."
                )

    def check(self, runner: CachingRunner, config: PreTrainedConfig) -> None:
        """Compares a runner with `generate`.

        Args:
            runner: what is tried.
            config: the text configuration that its model reads.

        Raises:
            Refused: it differs, or does not run.
        """
        runner.vocabulary.obstacle = None
        with refusing("run"):
            self._check_all(runner, self._examples)
            if self._short:
                with oracle.short_windows(config):
                    runner.read_windows()
                    self._check_all(runner, self._short)
                runner.read_windows()

    def check_batch(self, runner: CachingRunner) -> None:
        """Compares one ragged batch only.

        Raises:
            Refused: it differs, or does not run.
        """
        with refusing("run"):
            self._check_batch(runner, self._examples)

    def check_rounded(self, runner: CachingRunner, config: PreTrainedConfig) -> None:
        """Compares a runner whose weights were rounded, and was found right before.

        Raises:
            Unavailable: its results stray too far.
        """
        self._largest, self._mean = ROUNDED_LARGEST, ROUNDED_MEAN
        try:
            self.check(runner, config)
        except DoesNotFit:
            raise
        except Refused as refusal:
            raise Unavailable(
                f"--weights int8 changes {self._name} too much: {refusal}. Serve it without."
            ) from refusal

    def _check_batch(self, runner: CachingRunner, examples: list[Example]) -> None:
        with Trial(runner) as trial:
            self._compare("in one batch", examples, trial.batch(examples))

    def _check_all(self, runner: CachingRunner, examples: list[Example]) -> None:
        self._check_batch(runner, examples)
        longest = examples[0]
        with Trial(runner) as trial:
            self._compare("after a fork", [longest], [trial.forked(longest)])
        with Trial(runner) as trial:
            self._compare("after a cut", [longest], [trial.cut(longest)])
        if runner.vocabulary.obstacle is not None:
            return
        with Trial(runner) as trial:
            self._compare("after growth", [longest], [trial.grown(longest, given=False)])
        try:
            with Trial(runner) as trial:
                self._compare("of a new id", [longest], [trial.grown(longest, given=True)])
        except Refused as refusal:  # more tables than one: it is served, and does not grow
            runner.vocabulary.obstacle = (
                f"{self._name} looks up ids elsewhere than in its embedding, so none can be added: "
                f"with the row of another id, {refusal}"
            )
            logger.warning("%s", runner.vocabulary.obstacle)

    def _compare(self, when: str, examples: list[Example], results: list[Tensor]) -> None:
        expected = torch.cat([example.logits for example in examples])
        result = torch.cat([rows.cpu()[:, : expected.shape[1]] for rows in results])
        result, expected = masked_logits.comparable(result, expected)
        difference = (result - expected).abs()
        largest = float(difference.max() / expected.abs().max())
        mean = float((difference.mean(-1) / expected.std(-1)).max())
        logger.debug("Logits %s differ by %.3g at most, and %.3g on average", when, largest, mean)
        if not (largest <= self._largest and mean <= self._mean):
            raise Refused(
                f"it gives other logits {when} than in `generate` (by up to {largest:.2g} of the "
                f"largest, and on average {mean:.2g} of their standard deviation)"
            )


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turns any failure of an untried model into the reason not to serve it.

    Args:
        what: what it is tried to do.

    Raises:
        DoesNotFit: memory is short or a device fails, whatever the path.
        Refused: anything else.
    """
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if row_failure.is_shortage(error):
            raise DoesNotFit(
                f"Memory is not sufficient for the model to {what} ({reason}). In addition to the "
                "weights, every sequence that may run at once needs KV cache for its whole "
                "length: lower --max-running-sequences, --max-session-rows or "
                "--max-context-tokens, or set --max-kv-tokens."
            ) from error
        if isinstance(error, torch.AcceleratorError):
            raise DoesNotFit(f"The device failed when the model was to {what}: {reason}") from error
        raise Refused(f"it does not {what}: {reason}") from error
