"""What an operator can set about the tokenizer service. Read once, in `server.py`."""

from pathlib import Path

import platformdirs
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from rpc.control_groups import available_cores
from rpc.settings import ServerSettings
from tokenizer_service.store import durable_folder
from tokenizer_service.store.database import file_of, parse_url
from vocabulary import TOKENIZER_ID_PATTERN, tokenizer_id_of

STORE_FILE = "vocabulary.sqlite"


class TokenizerSettings(ServerSettings):
    """Settings of the tokenizer service: variables `LOCKSTEP_TOKENIZER_*` or flags.

    A flag wins over its variable, and a variable over the default.
    """

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_TOKENIZER_")

    port: int = Field(default=50051, ge=0, le=65535)
    """gRPC port. 0 picks a free one; the line printed at start names it."""

    health_port: int = Field(default=50151, ge=0, le=65535)
    """Port of `grpc.health.v1`, always plaintext, for probes. 0 picks a free one."""

    metrics_port: int = Field(default=9451, ge=0, le=65535)
    """Port of `/metrics` over HTTP, for Prometheus. 0 picks a free one."""

    model: str = "smollm2-135m-instruct"
    """The model whose tokenizer is served: a Hugging Face folder, a GGUF file, a hub id or the
    default model's name."""

    tokenizer_id: str | None = Field(default=None, pattern=f"^{TOKENIZER_ID_PATTERN}$")
    """Name of the tokenizer in every response. The default is made of the model's name."""

    store: str | None = None
    """Where revisions are kept: `sqlite:///FILE`, `postgresql://USER@HOST:PORT/DATABASE` for
    several replicas, or `sqlite://` for memory, which a restart empties. The default is a file
    named after the tokenizer in the user's data folder. Keep a file on a local disk, and back up
    file or database: revisions cannot be recreated."""

    store_password_file: Path | None = None
    """File with the password of a PostgreSQL store; read for each connection, so it may change.
    Without it: the password in the URL, or the one that libpq finds (`PGPASSFILE`,
    `PGPASSWORD`)."""

    store_poll_interval_s: float = Field(default=1.0, ge=0.05, le=60, allow_inf_nan=False)
    """Seconds between looks for revisions that other replicas wrote to a PostgreSQL store. Each
    revision is also announced, so this is the longest delay after a lost announcement."""

    catch_up_timeout_s: float = Field(default=0.5, ge=0, le=30, allow_inf_nan=False)
    """Seconds that a request may wait for the revision that it names when another replica wrote it.
    Beyond it, `VOCABULARY_BEHIND`."""

    threads: int = Field(default=0, ge=0)
    """Threads that encode and decode. 0 means one per core that this process may use, as far as its
    CPU quota goes (a container's limit, rounded up)."""

    max_pending_calls: int = Field(default=256, ge=1)
    """Most pieces of work that run or wait for a thread. Beyond it, `OVERLOADED`."""

    max_working_bytes: int = Field(default=256 * 2**20, ge=2**20)
    """Estimated memory that calls with large texts may use at the same time. Further calls wait
    until some of it is free; a call that needs more than all of it runs alone."""

    max_items: int = Field(default=64, ge=1, le=4096)
    """Most texts, rows or conversations of one call."""

    max_text_bytes: int = Field(default=256 * 2**10, ge=1, le=2**26)
    """Most bytes of one text."""

    max_padded_cells: int = Field(default=2**18, ge=1, le=2**26)
    """Most cells, rows times length, of a padded batch."""

    max_added_tokens: int = Field(default=8192, ge=0)
    """Most tokens that all revisions together may add."""

    quota_added_tokens_per_hour: int = Field(default=0, ge=0)
    """Tokens that one caller may add in an hour, unless `principals` gives it another number;
    importing a log is not counted. 0 means no limit but `max_added_tokens`."""

    template_workers: int = Field(default=2, ge=1, le=64)
    """Processes that render chat templates."""

    template_timeout_s: float = Field(default=1.0, gt=0, le=60, allow_inf_nan=False)
    """Seconds that a chat template may take for one call."""

    template_memory_bytes: int = Field(default=256 * 2**20, ge=2**20)
    """Memory that a chat template may use."""

    @field_validator("store")
    @classmethod
    def _store_is_known(cls, store: str | None) -> str | None:
        if store is not None:
            parse_url(store)
        return store

    @property
    def num_threads(self) -> int:
        """Threads that encode and decode."""
        return self.threads or available_cores()

    def loggable(self) -> dict[str, object]:
        """Returns every value as a JSON type, without the password of the store."""
        store = parse_url(self.store).render_as_string() if self.store else None
        return {**super().loggable(), "store": store}

    def id_for(self, checkpoint: str) -> str:
        """Returns the tokenizer's name, given the checkpoint's."""
        return self.tokenizer_id or tokenizer_id_of(checkpoint)

    def store_url(self, tokenizer_id: str) -> str:
        """Returns where revisions are kept, and makes the default's folder."""
        if self.store is not None:
            return self.store
        folder = Path(platformdirs.user_data_path("lockstep")) / tokenizer_id
        durable_folder.make(folder)
        return f"sqlite:///{folder / STORE_FILE}"

    def shown_store(self, checkpoint: str) -> str:
        """Returns where revisions of a checkpoint's tokenizer are kept, without a password."""
        url = parse_url(self.store_url(self.id_for(checkpoint)))
        return str(file_of(url) or url.render_as_string())
