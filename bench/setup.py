"""What parts of the benchmark run on: the model, and those that run it, each started once."""

import importlib
import json
import pkgutil
import sys
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench import peers
from bench.contender import ROOT, Contender, Worker, environment
from bench.peers import lockstep
from bench.services import Service, model_service
from bench.workload import LAST_ID, Workload
from checkpoints import cache
from model_service.front.engine_client.process import engine_environment

OURS = "ours"

# What a user would pick instead at a precision, besides another engine at the same.
INSTEAD = {"int8": ("int8", "q8_0", "q4_k_m")}
ENVIRONMENTS = ROOT / ".lockstep" / "peers"
NO_PEERS = {"lockstep", "rounds"}
IN_OUR_ENVIRONMENT = {"generate"}


@dataclass(slots=True)
class Setup:
    """The model and its contenders.

    Attributes:
        model: folder of the checkpoint.
        gguf: the file that it was made from, if it was.
        precision: of ours.
        peers: names of the others.
        threads: that each computes with.
        streams: how many prompts run at once.
        prompt_tokens: ids of a prompt.
        new_tokens: ids generated for each.
        prefill: ids of the prompts that are measured alone.
        decode_graphs: whether our steps are compiled.
        stack: ends what was started.
    """

    model: Path
    gguf: Path | None
    precision: str
    peers: list[str]
    threads: int
    streams: list[int]
    prompt_tokens: int
    new_tokens: int
    prefill: list[int]
    decode_graphs: Literal["auto", "off"]
    stack: ExitStack
    _service: Service | None = None
    _engine: Worker | None = None
    _contenders: dict[str, Contender] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Contenders by name and precision, ours first."""
        return [f"{OURS} {self.precision}"] + [
            f"{peer} {precision}" for peer in self.peers for precision in self._offered(peer)
        ]

    @property
    def service(self) -> Service:
        """Our model service."""
        if self._service is None:
            self._service = self.stack.enter_context(self._serve())
        return self._service

    @property
    def contenders(self) -> dict[str, Contender]:
        """Everybody who generates, by name and precision."""
        if not self._contenders:
            ours = Contender(
                OURS, lockstep.__name__, [self.service.address], variables=environment(1)
            )
            self._contenders[self.names[0]] = self.stack.enter_context(ours)
            for name in self.names[1:]:
                self._contenders[name] = self.stack.enter_context(self._peer(name))
        return self._contenders

    @property
    def engine(self) -> Worker:
        """An engine of ours without a front."""
        if self._engine is None:
            worker = Worker(
                "engine",
                "bench.engine_worker",
                [str(self.model), self.precision, self.decode_graphs],
                variables=engine_environment(environment(self.threads), self.threads),
            )
            self._engine = self.stack.enter_context(worker)
        return self._engine

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what holds the model, by name and precision."""
        found = {name: contender.pid for name, contender in self.contenders.items()}
        return {**found, self.names[0]: self.service.pid}

    def workload(self, streams: int, **options: Any) -> Workload:
        """Returns prompts of the usual lengths, unless the options say otherwise."""
        lengths = {"prompt_tokens": self.prompt_tokens, "new_tokens": self.new_tokens}
        config = json.loads((self.model / "config.json").read_text())
        size = min(config["vocab_size"], LAST_ID + 1)
        return Workload(streams, **{**lengths, **options}, vocabulary_size=size)

    def start(self, name: str) -> AbstractContextManager[Any]:
        """Starts another one of a contender until it has loaded its model."""
        return self._serve() if name == self.names[0] else self._peer(name)

    def _serve(self) -> AbstractContextManager[Service]:
        arguments = ("--decode-graphs", self.decode_graphs, *lockstep.PRECISIONS[self.precision])
        return model_service(str(self.model), self.threads, arguments)

    def _peer(self, name: str) -> Contender:
        peer, precision = name.split()
        source = self.gguf if _module(peer).FROM_GGUF else self.model
        return Contender(
            name,
            f"{peers.__name__}.{peer}",
            [str(source), precision, str(cache.root() / "bench" / peer)],
            variables=environment(self.threads),
            python=str(interpreter(peer)),
        )

    def _offered(self, peer: str) -> list[str]:
        """Returns the precisions of a peer that stand beside ours."""
        module = _module(peer)
        if module.FROM_GGUF and self.gguf is None:
            return []
        wanted = INSTEAD.get(self.precision, (self.precision,))
        return [precision for precision in wanted if precision in module.PRECISIONS]


def interpreter(peer: str) -> Path:
    """Returns the Python of a peer's own environment, whether or not it exists."""
    if peer in IN_OUR_ENVIRONMENT:
        return Path(sys.executable)
    return ENVIRONMENTS / peer / "bin" / "python"


def installed_peers() -> list[str]:
    """Returns the peers whose environments are there."""
    names = {module.name for module in pkgutil.iter_modules(peers.__path__)} - NO_PEERS
    return sorted(name for name in names if interpreter(name).exists())


def _module(peer: str) -> Any:
    return importlib.import_module(f"{peers.__name__}.{peer}")
