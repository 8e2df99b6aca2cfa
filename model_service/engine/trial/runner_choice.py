"""Chooses what runs a model: the fast path where it equals `generate`, else the compat path.

A model for which neither does is refused with both reasons. Nothing is known
about architectures here: what counts is what the self-test finds.
"""

import gc
import logging
from collections.abc import Callable

import torch

from model_service.engine.layers import merged_linear
from model_service.engine.layers.merged_linear import SiblingLayers
from model_service.engine.load import loader
from model_service.engine.load.loader import DoesNotFit, LoadedModel, Refused, Unavailable
from model_service.engine.run import rounded_weights
from model_service.engine.run.compat_runner import CompatRunner
from model_service.engine.run.model_runner import ModelRunner
from model_service.engine.trial import attention_choice, self_test
from model_service.engine.trial.self_test import SelfTest
from model_service.protocol import EngineSettings

logger = logging.getLogger(__name__)

# A length that no cache has in the self-test.
OTHER_LENGTH = 1000


def choose(
    settings: EngineSettings, on_loaded: Callable[[], None]
) -> tuple[LoadedModel, ModelRunner | CompatRunner]:
    """Loads the model and makes the fastest runner that equals `generate`.

    Raises:
        Refused: the model cannot be loaded, no runner equals `generate`, or there is too little
            memory: lack of it never leads to the slow path.
    """
    loaded = loader.load(settings)
    on_loaded()
    with merged_linear.observe(loaded.model) as siblings:
        test = SelfTest(loaded, settings.vocabulary_size)
    reason = fast_obstacle(loaded)
    if reason is None:
        try:
            return loaded, _fast(loaded, settings, siblings, test)
        except (DoesNotFit, Unavailable):
            raise
        except Refused as refusal:
            reason = str(refusal)
        _check_compat(settings, reason)
        # What the attempt changed in the modules goes with them.
        del loaded, siblings
        gc.collect()
        torch.cuda.empty_cache()  # or the second load would find no room
        loaded = loader.load(settings)
    else:
        _check_compat(settings, reason)
    name = type(loaded.model).__name__
    logger.info("%s takes the compat path; on the fast path %s", name, reason)
    try:
        return loaded, _compat(loaded, settings, test)
    except DoesNotFit:
        raise
    except Refused as refusal:
        raise Refused(
            f"{name} cannot be served. On the fast path {reason}. On the compat path {refusal}."
        ) from refusal


def _check_compat(settings: EngineSettings, reason: str) -> None:
    """Checks that the settings are for the compat path, too.

    Raises:
        Unavailable: they are not.
    """
    if settings.weights == "int8":
        raise Unavailable(f"--weights int8 is for models that take the fast path, where {reason}.")


def fast_obstacle(loaded: LoadedModel) -> str | None:
    """Says why a model cannot take the fast path, as far as that shows without trying."""
    if not getattr(loaded.model, "_supports_attention_backend", False):
        return "its code does not take another attention function"
    try:
        loader.layer_windows(loaded.config)
    except Refused as refusal:
        return str(refusal)
    return None


def _fast(
    loaded: LoadedModel, settings: EngineSettings, siblings: SiblingLayers, test: SelfTest
) -> ModelRunner:
    with self_test.refusing("start"):
        runner = ModelRunner(loaded, settings, siblings)
    test.check(runner, loaded.config)
    try:
        runner.cache.claimed_length = OTHER_LENGTH
        test.check_batch(runner)
    except Refused as refusal:
        raise Refused(f"its results depend on the length of its cache: {refusal}") from refusal
    runner.cache.claimed_length = 0
    attention_choice.choose(runner, settings.attention, lambda: test.check_batch(runner))
    if settings.weights == "int8":
        rounded_weights.round_weights(loaded.model, settings.compile_cache)
        test.check_rounded(runner, loaded.config)
    return runner


def _compat(loaded: LoadedModel, settings: EngineSettings, test: SelfTest) -> CompatRunner:
    with self_test.refusing("start"):
        runner = CompatRunner(loaded, settings)
    try:
        test.check(runner, loaded.config)
    except Refused as refusal:
        logger.info(
            "%s takes prompts as a whole; in chunks %s", type(loaded.model).__name__, refusal
        )
        runner.extends = False
        test.check(runner, loaded.config)
    runner.measure()
    return runner
