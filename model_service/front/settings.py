"""What an operator can set about the model service. Read once, in `server.py`."""

from typing import Literal

from pydantic import Field, FilePath, model_validator
from pydantic_settings import SettingsConfigDict

from rpc.settings import ServerSettings, is_loopback

MEBIBYTE = 2**20
NO_TOKENIZER = "none"
USUAL_TOKENIZER = "localhost:50051"


class ModelSettings(ServerSettings):
    """Settings of the model service: variables `LOCKSTEP_MODEL_*` or flags of the same names.

    Below `server.py` nothing reads the environment: each class takes the values
    it needs as arguments. Units are in the names.
    """

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_MODEL_")

    port: int = Field(default=50052, ge=0, le=65535)
    """gRPC port. 0 picks a free one."""

    health_port: int = Field(default=50152, ge=0, le=65535)
    """Port of the health service, without TLS. 0 picks a free one."""

    metrics_port: int = Field(default=9452, ge=0, le=65535)
    """Port of the Prometheus metrics. 0 picks a free one."""

    model: str = "smollm2-135m-instruct"
    """The model: a Hugging Face folder, a GGUF file, a hub id or the default model's name."""

    adapter: str = ""
    """Folder of a LoRA adapter (`adapter_config.json` and `adapter_model.safetensors`, as `peft`
    writes them) that is merged into the weights at start."""

    assistant_model: str = ""
    """A smaller model with the same vocabulary, named as `model` is, that drafts the tokens of
    generations; the model verifies several drafts in one step. It changes speed and not results,
    takes memory for its weights and a KV cache of its own, and needs a model on the CPU."""

    tokenizer_address: str = USUAL_TOKENIZER
    """`host:port` of the tokenizer service whose vocabulary is followed. If it is set, the service
    is not ready before that tokenizer service has been reached. If it is not set and no tokenizer
    service answers at the default address, the vocabulary of the checkpoint is served meanwhile.
    With `none` no tokenizer service is followed and the vocabulary never grows."""

    tokenizer_tls_ca: FilePath | None = None
    """PEM file with the authorities that sign the tokenizer service's certificate. With it the
    tokenizer service is called over TLS, without it in plain text. This file, the certificate and
    the key are read again for every connection."""

    tokenizer_tls_certificate: FilePath | None = None
    """PEM file with the certificate chain that is shown to the tokenizer service (mutual TLS)."""

    tokenizer_tls_key: FilePath | None = None
    """PEM file with the private key of `tokenizer_tls_certificate`."""

    tokenizer_tls_name: str = ""
    """Name to expect in the tokenizer service's certificate, if it differs from the address."""

    tokenizer_token_file: FilePath | None = None
    """File with a bearer token that is shown to the tokenizer service, where its principal needs
    the role `info`; read again for every connection. It is not sent in plain text, except to this
    machine."""

    dtype: Literal["fp32", "bf16", "fp16", "auto"] = "auto"
    """Type of weights and KV cache. `auto` is the checkpoint's own. Logits are always computed in
    float32 from the head's output."""

    weights: Literal["auto", "int8"] = "auto"
    """How linear layers and the output layer keep their weights. `auto` changes no number. `int8`
    rounds weights to 8 bits and their inputs at every step, on CPUs: faster and smaller, and less
    exact (docs/models.md says how much). It needs a C++ compiler (g++) and a processor with
    AVX-512 VNNI, and is refused where the results stray too far from the model's."""

    device_map: str = "auto"
    """Where modules are placed: `auto`, `balanced`, `sequential`, one device such as `cpu`, or a
    JSON object of module name to device."""

    threads: int = Field(default=0, ge=0)
    """OpenMP threads of the engine. 0 means one per core that this process may use, as far as its
    CPU quota goes (a container's limit, rounded up)."""

    max_running_sequences: int = Field(default=32, ge=1)
    """Most sequences in one step, rows of sessions included."""

    max_waiting_sequences: int = Field(default=64, ge=0)
    """Most sequences that wait for a place. Beyond it `OVERLOADED` is answered at once."""

    quota_sequences: int = Field(default=0, ge=0)
    """Most sequences of one caller that run or wait in this replica, unless `principals` gives it
    another number. 0 means no limit of its own; callers share what there is in any case."""

    quota_sessions: int = Field(default=0, ge=0)
    """Most open sessions of one caller, likewise."""

    quota_kv_percent: int = Field(default=0, ge=0, le=100)
    """Most of the KV cache, in percent, that the generations and sessions of one caller may
    reserve, likewise."""

    quota_tokens_per_minute: int = Field(default=0, ge=0)
    """Tokens of prompts, steps and answers that one caller may use in a minute, likewise."""

    max_sequences_per_call: int = Field(default=64, ge=1, le=4096)
    """Most prompts times sequences per prompt of one call."""

    max_sessions: int = Field(default=256, ge=0)
    """Most open sessions."""

    max_session_rows: int = Field(default=256, ge=0)
    """Most rows of all open sessions."""

    session_ttl_s: float = Field(default=300.0, ge=1)
    """Idle time after which a session is closed, unless it asked for another."""

    max_session_ttl_s: float = Field(default=3600.0, ge=1)
    """Longest idle time that a session may ask for."""

    replica: str = Field(default="", pattern=r"^[A-Za-z0-9._:/-]{0,128}$")
    """Name of this replica, which the names of its sessions begin with. Empty means
    `POD_NAMESPACE/POD_NAME` where these variables are set, and this machine's name with the port
    otherwise. It must differ from the names of all other replicas, and stay the same at a
    restart."""

    replica_address: str = Field(
        default="", pattern=r"^([A-Za-z0-9.-]|\{pod\}|\{namespace\})*(:[0-9]+)?$"
    )
    """`host:port` at which a replica alone is reached, `{pod}` and `{namespace}` standing for the
    parts of its name. Told to callers whose session another replica has. Empty means that only a
    name that is a host and a port is told."""

    session_drain_silence_s: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """After SIGTERM, seconds without a call after which a session is not waited for. Sessions in
    use go on until `drain_timeout_s`."""

    session_new_tokens: int = Field(default=1024, ge=1)
    """Tokens that a session without `max_length` has room for, in addition to its prompt."""

    max_context_tokens: int = Field(default=0, ge=0, le=2**20)
    """Most tokens of a sequence, prompt included. 0 means what the model was made for, at most
    8192."""

    max_kv_tokens: int = Field(default=0, ge=0)
    """Tokens of KV cache in total. 0 means as many as `max_running_sequences` full contexts need,
    as far as memory allows. On a GPU this memory is set aside at start."""

    attention: Literal["auto", "triton", "sdpa"] = "auto"
    """What sequences on a GPU that decode attend with: `triton`, a kernel that reads keys and
    values where they are and gives a sequence the same in any batch; `sdpa`, torch's own after
    gathering them; `auto`, the first if it equals the second. `triton` refuses to start where it
    does not. On a CPU this changes nothing."""

    gpu_memory_fraction: float = Field(default=0.9, gt=0, le=1, allow_inf_nan=False)
    """Share of a GPU's memory that weights, a step and KV cache may take together. The rest is for
    others on the same GPU, and for what fragments."""

    decode_graphs: Literal["auto", "off"] = "auto"
    """Whether steps are compiled, on CPUs: `auto` compiles in the background with the
    processor time that the engine does not use, compares the result with the model's own code, and
    uses it if both agree. This needs a C++ compiler (g++) and takes a minute or more the first
    time; `compile_cache` keeps the result. `off` never compiles."""

    compile_cache: str = ""
    """Folder that keeps compiled steps. Empty means the cache folder (`LOCKSTEP_CACHE`). If it
    cannot be written, they go to a temporary folder for one run, and the log says so."""

    default_max_new_tokens: int = Field(default=256, ge=1)
    """`max_new_tokens` of a request that gives none."""

    prefill_budget_s: float = Field(default=0.1, gt=0)
    """Time that prefill may add to a step in which other sequences decode; up to twice as much
    while more sequences wait for their prompts than decode, or none decodes."""

    reserved_vocabulary_rows: int = Field(default=8192, ge=0)
    """Spare rows after the embedding, so that growth of the vocabulary allocates nothing."""

    max_selected_tokens: int = Field(default=1024, ge=1, le=2**18)
    """Largest `top_k` and longest id list of a `ScoreSelection`."""

    logits_processors: str = ""
    """Modules with your own logits processors, separated by commas, as the engine's Python
    imports them; see docs/processors.md."""

    ring_bytes: int = Field(default=64 * MEBIBYTE, ge=MEBIBYTE)
    """Shared memory through which rows of logits come from the engine."""

    stream_buffer_bytes: int = Field(default=64 * MEBIBYTE, ge=MEBIBYTE)
    """Bytes of rows kept for one call that does not read its stream. Beyond it the call ends with
    `SLOW_CONSUMER`."""

    max_streamed_step_bytes: int = Field(default=256 * MEBIBYTE, ge=MEBIBYTE)
    """Largest answer to a step that comes in chunks (`StepStream`); it is kept until it is sent.
    A larger one is answered with `RESPONSE_TOO_LARGE`."""

    stream_stall_timeout_s: float = Field(default=30.0, gt=0)
    """Time that a stream may go unread before it ends with `SLOW_CONSUMER`."""

    engine_stall_timeout_s: float = Field(default=15.0, gt=0)
    """Time without a step, with work to do and without using the processor, after which the engine
    counts as lost and the service exits. While it computes, it has 20 times as long."""

    vocabulary_wait_s: float = Field(default=0.5, ge=0)
    """Time that a request waits for a revision that this replica has not received yet."""

    @property
    def awaits_tokenizer(self) -> bool:
        """Whether an operator named the tokenizer service, so that it is expected to be there."""
        return "tokenizer_address" in self.model_fields_set

    @model_validator(mode="after")
    def _the_largest_call_can_be_admitted(self) -> "ModelSettings":
        admitted = self.max_running_sequences + self.max_waiting_sequences
        if self.max_sequences_per_call > admitted:
            raise ValueError(
                f"max_sequences_per_call ({self.max_sequences_per_call}) must be at most "
                f"max_running_sequences + max_waiting_sequences ({admitted})"
            )
        return self

    @model_validator(mode="after")
    def _the_tokenizer_services_tls_files_come_together(self) -> "ModelSettings":
        certificate, key = self.tokenizer_tls_certificate, self.tokenizer_tls_key
        if (certificate is None) != (key is None):
            raise ValueError("--tokenizer-tls-certificate and --tokenizer-tls-key go together")
        if self.tokenizer_tls_ca is None and (certificate or self.tokenizer_tls_name):
            raise ValueError("--tokenizer-tls-* need --tokenizer-tls-ca")
        is_named = self.awaits_tokenizer and self.tokenizer_address != NO_TOKENIZER
        if self.tokenizer_tls_ca is not None and not is_named:
            raise ValueError("--tokenizer-tls-ca needs --tokenizer-address")
        return self

    @model_validator(mode="after")
    def _no_token_is_sent_in_plain_text(self) -> "ModelSettings":
        host = self.tokenizer_address.rpartition(":")[0].strip("[]")
        is_safe = self.tokenizer_tls_ca is not None or is_loopback(host)
        if self.tokenizer_token_file is not None and not is_safe:
            raise ValueError("--tokenizer-token-file needs --tokenizer-tls-ca")
        return self

    @model_validator(mode="after")
    def _the_default_ttl_is_allowed(self) -> "ModelSettings":
        if self.session_ttl_s > self.max_session_ttl_s:
            raise ValueError("session_ttl_s must be at most max_session_ttl_s")
        return self
