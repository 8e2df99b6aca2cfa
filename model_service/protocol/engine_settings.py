"""What the engine process is started with."""

from typing import Literal

import msgspec


class EngineSettings(msgspec.Struct, frozen=True):
    """What the engine process is started with: JSON in its only argument."""

    socket_path: str
    """Unix socket that the front listens on; the engine connects to it."""

    ring_name: str
    """Name of the shared ring."""

    model_folder: str
    """Checked folder with `config.json` and safetensors weights."""

    adapter_folder: str = ""
    """Checked folder of a LoRA adapter to merge, or nothing."""

    assistant_folder: str = ""
    """Checked folder of a smaller model that drafts tokens, or nothing."""

    dtype: str = "auto"
    """`float32`, `bfloat16`, `float16`, or `auto` for the checkpoint's own."""

    weights: Literal["auto", "int8"] = "auto"
    """Whether linear layers keep their weights as `dtype`, or round them to int8."""

    device_map: str = "auto"
    """`auto`, `balanced`, `sequential`, one device, or a JSON object of module to device."""

    attention: Literal["auto", "triton", "sdpa"] = "auto"
    """What decoding rows of a GPU attend with."""

    threads: int = 1
    """OpenMP threads."""

    max_running_sequences: int = 32
    """Most rows in one step, sessions included."""

    max_waiting_sequences: int = 64
    """Most rows that wait for a place."""

    max_session_rows: int = 256
    """Most rows of open sessions."""

    max_context_tokens: int = 0
    """Most tokens of a sequence; 0 means what the model was made for, at most 8192."""

    max_kv_tokens: int = 0
    """Tokens of KV cache in total; 0 means what `max_running_sequences` full contexts need, as far
    as memory allows."""

    gpu_memory_fraction: float = 0.9
    """Share of a GPU's memory that weights, a step and KV cache may take together."""

    prefill_budget_s: float = 0.1
    """Time that prefill may add to a step in which other sequences decode; up to four times as much
    while more sequences wait for their prompts than decode."""

    default_max_new_tokens: int = 256
    """`max_new_tokens` of a request that gives none."""

    vocabulary_size: int = 0
    """Ids of the tokenizer at revision 0; 0 means as many as the embedding has rows. A checkpoint's
    embedding may be padded beyond it: those rows are never generated."""

    reserved_vocabulary_rows: int = 8192
    """Rows kept free behind the embedding for vocabulary growth."""

    decode_graphs: Literal["auto", "off"] = "off"
    """Whether steps are compiled in the background where that is possible."""

    compile_cache: str = ""
    """Folder for compiled steps; empty means the cache folder."""

    logits_processors: tuple[str, ...] = ()
    """Modules with processors of the operator's."""
