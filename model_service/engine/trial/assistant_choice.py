"""Chooses what drafts tokens: a smaller model that is tried as the model itself is, or nothing."""

import msgspec

from model_service.engine.load.loader import LoadedModel, Refused
from model_service.engine.run.assistant import Assistant
from model_service.engine.run.compat_runner import CompatRunner
from model_service.engine.run.model_runner import ModelRunner
from model_service.engine.trial import runner_choice
from model_service.protocol import EngineSettings


def choose(
    settings: EngineSettings, loaded: LoadedModel, runner: ModelRunner | CompatRunner
) -> Assistant | None:
    """Loads the assistant model that the settings name, if they name one.

    Args:
        settings: the engine's.
        loaded: the model whose tokens are drafted.
        runner: what runs it.

    Raises:
        Refused: the assistant cannot be loaded, or does not fit the model.
    """
    if not settings.assistant_folder:
        return None
    if not runner.takes_drafts:
        raise _refusal("the model takes the compat path, which cannot verify drafts")
    if not loaded.is_on_cpu:
        raise _refusal("it drafts on the CPU only, and the model is on another device")
    own = msgspec.structs.replace(
        settings, model_folder=settings.assistant_folder, adapter_folder="", device_map="cpu"
    )
    small, small_runner = runner_choice.choose(own, lambda: None)
    if not isinstance(small_runner, ModelRunner):
        raise _refusal("it takes the compat path, which is too slow to draft")
    sizes = small_runner.vocabulary.base_size, runner.vocabulary.base_size
    if sizes[0] != sizes[1]:
        raise _refusal(f"it has {sizes[0]} ids, and the model {sizes[1]}")
    small_runner.graphs.prepare(own, small)
    return Assistant(small_runner, small.context_length)


def _refusal(reason: str) -> Refused:
    return Refused(f"The assistant model cannot be used: {reason}. Leave --assistant-model out.")
