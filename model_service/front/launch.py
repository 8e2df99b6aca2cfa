"""From settings to what a model service is started with."""

from dataclasses import dataclass
from pathlib import Path

from lockstep.v1 import model_info_service_pb2

import checkpoints
from checkpoints import Adapter, Checkpoint, CheckpointError, adapter
from model_service.front.checks.response_size import ResponseLimits
from model_service.front.settings import NO_TOKENIZER, ModelSettings
from model_service.front.vocabulary.base import difference as base_difference
from model_service.front.vocabulary.base import read_base_vocabulary
from model_service.front.vocabulary.service import TokenizerAddress
from model_service.protocol import EngineSettings
from rpc.control_groups import available_cores
from rpc.tls import CallerFiles
from vocabulary import Reference

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "auto": "auto"}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A checkpoint at hand.

    Attributes:
        checkpoint: its name and folder.
        adapter: what is merged into it, or None.
        base: its vocabulary, or None when it came without a tokenizer.
        assistant: a smaller model of the same vocabulary that drafts tokens, or None.
    """

    checkpoint: Checkpoint
    adapter: Adapter | None
    base: Reference | None
    assistant: Checkpoint | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all files, lower-case hexadecimal."""
        return adapter.fingerprint(self.checkpoint, self.adapter)


def obtain(name: str, adapter_path: str = "", assistant_name: str = "") -> ModelFiles:
    """Obtains a checkpoint and reads its vocabulary. Takes seconds, or a download.

    Args:
        name: what `--model` names.
        adapter_path: what `--adapter` names, or nothing.
        assistant_name: what `--assistant-model` names, or nothing.

    Raises:
        CheckpointError: it cannot be had, is broken, or is not one for the other.
    """
    merged = checkpoints.resolve_adapter(adapter_path) if adapter_path else None
    checkpoint = checkpoints.resolve(name, need="model")
    try:
        base = read_base_vocabulary(checkpoint.name, checkpoint.folder)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.folder / 'tokenizer.json'}: {error}") from error
    assistant = checkpoints.resolve(assistant_name, need="model") if assistant_name else None
    if assistant and (difference := base_difference(checkpoint.folder, assistant.folder)):
        raise CheckpointError(
            f"--assistant-model {assistant.name} has another vocabulary than {checkpoint.name}: "
            f"{difference}. Drafts are ids: name a model with the same tokenizer.json, or none."
        )
    return ModelFiles(checkpoint, merged, base, assistant)


def tokenizer_address(settings: ModelSettings) -> TokenizerAddress | None:
    """Returns where the tokenizer service is, or None when none is followed.

    Raises:
        OSError: a TLS file cannot be read, or the files do not fit together.
    """
    if settings.tokenizer_address == NO_TOKENIZER:
        return None
    token_file = settings.tokenizer_token_file
    if settings.tokenizer_tls_ca is None:
        return TokenizerAddress(settings.tokenizer_address, token_file=token_file)
    files = CallerFiles(
        settings.tokenizer_tls_ca, settings.tokenizer_tls_certificate, settings.tokenizer_tls_key
    )
    files.credentials()  # what cannot be used is found out now
    return TokenizerAddress(
        settings.tokenizer_address, files, settings.tokenizer_tls_name, token_file
    )


def engine_settings(settings: ModelSettings, model: ModelFiles) -> EngineSettings:
    """Returns what the engine process is started with, but for its socket and ring."""
    return EngineSettings(
        socket_path="",  # filled in by the process, like the ring
        ring_name="",
        model_folder=str(model.checkpoint.folder),
        adapter_folder=str(model.adapter.folder) if model.adapter else "",
        assistant_folder=str(model.assistant.folder) if model.assistant else "",
        dtype=_DTYPES[settings.dtype],
        weights=settings.weights,
        device_map=settings.device_map,
        threads=settings.threads or available_cores(),
        max_running_sequences=settings.max_running_sequences,
        max_waiting_sequences=settings.max_waiting_sequences,
        max_session_rows=settings.max_session_rows,
        max_context_tokens=settings.max_context_tokens,
        max_kv_tokens=settings.max_kv_tokens,
        attention=settings.attention,
        gpu_memory_fraction=settings.gpu_memory_fraction,
        prefill_budget_s=settings.prefill_budget_s,
        decode_graphs=settings.decode_graphs,
        compile_cache=settings.compile_cache,
        default_max_new_tokens=settings.default_max_new_tokens,
        vocabulary_size=model.base.size if model.base else 0,
        reserved_vocabulary_rows=settings.reserved_vocabulary_rows,
        logits_processors=tuple(
            name.strip() for name in settings.logits_processors.split(",") if name.strip()
        ),
    )


def response_limits(settings: ModelSettings) -> ResponseLimits:
    """Returns how large answers may be."""
    return ResponseLimits(settings.max_response_bytes, settings.max_streamed_step_bytes)


def model_limits(settings: ModelSettings) -> model_info_service_pb2.ModelLimits:
    """Returns the limits that callers are told; the engine knows the rest."""
    return model_info_service_pb2.ModelLimits(
        max_sequences_per_call=settings.max_sequences_per_call,
        max_running_sequences=settings.max_running_sequences,
        max_waiting_sequences=settings.max_waiting_sequences,
        max_sessions=settings.max_sessions,
        max_selected_tokens=settings.max_selected_tokens,
        max_request_bytes=settings.max_message_bytes,
        max_response_bytes=settings.max_response_bytes,
        max_chunk_bytes=response_limits(settings).max_chunk_bytes,
    )


def short_name(model: str) -> str:
    """Returns the name that metrics are labeled with, which is needed before anything is read."""
    path = Path(model)
    return path.name if path.exists() else model
