"""Compiles a model's steps in the background, tries them, and then uses them.

Everything happens between steps, in slices no longer than a short step: the
compiling is done by a process of its own, loading maps a file, and the trial
runs one small step at a time. Until a graph has been tried, and wherever it
does not apply, Hugging Face's modeling code answers.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model_service.engine.layers import panels
from model_service.engine.load.loader import LoadedModel, layer_windows
from model_service.engine.run.decode_graph import comparison, compiler, operators
from model_service.engine.run.decode_graph.code_folder import CodeFolder
from model_service.engine.run.decode_graph.compilation import Compilation
from model_service.engine.run.decode_graph.compiled_steps import CompiledSteps, products
from model_service.engine.run.decode_graph.recipe import Recipe
from model_service.engine.run.kv_cache import KVCache
from model_service.engine.run.runner import CachingRunner
from model_service.engine.sequences.run import Run
from model_service.protocol import EngineSettings, GraphStatus

logger = logging.getLogger(__name__)

# A server that is only tried out for a moment compiles nothing.
START_DELAY_S = 5.0


class DecodeGraphs:
    """The graphs of one model.

    Attributes:
        status: the state of the graphs, as `GetModelInfo` reports it.
    """

    def __init__(self, model: PreTrainedModel, runner: CachingRunner) -> None:
        """Takes hold of a model; `prepare` looks whether it can be compiled.

        Args:
            model: the model.
            runner: what runs its steps.
        """
        self.status = GraphStatus("off")
        self._model = model
        self._decoder = model.base_model
        self._embedding = model.get_input_embeddings()
        self._forward = self._decoder.forward
        self._runner = runner
        self._recipe: Recipe | None = None
        self._key = ""
        self._folder = CodeFolder("")
        self._tolerance = 0.0
        self._steps: CompiledSteps | None = None
        self._compilation: Compilation | None = None
        self._work: Iterator[None] | None = None
        self._usable: set[str] = set()
        self._trying: str | None = None
        self._step: tuple[str, Tensor] | None = None
        self._output_type: type | None = None

    # --- Steps ---------------------------------------------------------------------------------

    def choose(self, runs: list[Run]) -> str | None:
        """Returns the graph that takes the runs of a step, or None."""
        graph = "row" if sum(run.num_tokens for run in runs) == 1 else "rows"
        return graph if graph in self._usable or graph == self._trying else None

    @contextmanager
    def use(self, graph: str | None, packed: Tensor) -> Iterator[None]:
        """Makes a graph stand for the decoder while the block runs.

        Args:
            graph: what `choose` returned.
            packed: ids, positions and slots of the step's tokens, `[3, T]` int64.
        """
        self._step = None if graph is None else (graph, packed)
        try:
            yield
        finally:
            self._step = None

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        """Stands where the decoder's `forward` was."""
        if self._step is not None:
            graph, packed = self._step
            assert self._steps is not None
            assert self._output_type is not None
            embeds = self._embedding(packed[0:1])
            try:
                hidden = self._steps.run(graph, embeds, packed[1:2], packed[2])
                return self._output_type(last_hidden_state=hidden)
            except torch.OutOfMemoryError:  # says nothing about the graph
                raise
            except RuntimeError as error:  # what it wrote to the cache is written again below
                self._give_up(f"A compiled step failed: {error}")
        output = self._forward(*args, **kwargs)
        self._output_type = type(output)
        return output

    # --- Between steps -------------------------------------------------------------------------

    def prepare(self, settings: EngineSettings, loaded: LoadedModel) -> None:
        """Begins to compile, or loads what was compiled before.

        Args:
            settings: whether to compile at all, and the folders of the model and of compiled code.
            loaded: the model, after its first steps.
        """
        if settings.decode_graphs == "off":
            return
        if reason := unsuitable(self._model, self._runner):
            self._give_up(reason)
            return
        self.status = GraphStatus("compiling")
        self._recipe = Recipe(
            model_folder=settings.model_folder,
            dtype=str(self._model.dtype).removeprefix("torch."),
            products=[product for product, _ in products(self._decoder)],
            windows=layer_windows(loaded.config),
        )
        self._key = self._recipe.key
        self._folder = CodeFolder(settings.compile_cache)
        # A last bit may decide to which step of int8 a number is rounded.
        coarsest = torch.bfloat16 if settings.weights == "int8" else self._model.dtype
        self._tolerance = comparison.LOGITS_TOLERANCE[coarsest]
        self._work = self._prepare()
        if all(map(self._find, ("operators", *compiler.GRAPHS))):
            while self.is_preparing:
                self.advance()

    @property
    def is_preparing(self) -> bool:
        """Whether `advance` has anything to do."""
        return self._work is not None

    def advance(self) -> None:
        """Does the next slice of what is left to do. Called between steps."""
        if self._work is None:
            return
        try:
            next(self._work)
        except StopIteration:
            self._work = None
        except Exception as error:  # whatever it is, the model serves without graphs
            self._give_up(str(error) or type(error).__name__)

    def close(self) -> None:
        """Ends the compiling process, if there is one."""
        self._work = None
        if self._compilation is not None:
            self._compilation.close()
            self._compilation = None
        self._folder.close()

    def _give_up(self, reason: str) -> None:
        logger.warning("Steps run without compiled graphs: %s", reason)
        self.close()
        self._usable.clear()
        self.status = GraphStatus("unavailable", reason)

    def _prepare(self) -> Iterator[None]:
        """Obtains operators and graphs, one by one, and tries each before it is used."""
        start = time.monotonic()
        folder = yield from self._obtain("operators")
        operators.load(folder)
        comparison.check_attention(self._cache())
        yield
        for _ in panels.adopt(self._model, "exact"):
            yield
        self._steps = CompiledSteps(self._decoder, self._cache())
        self._decoder.forward = self._call
        for graph in compiler.GRAPHS:
            folder = yield from self._obtain(graph)
            self._steps.load(graph, folder)
            yield
            attempt = self._attempt(graph)
            yield from comparison.compare_steps(
                self._runner, self._tolerance, graph == "row", attempt
            )
            self._usable.add(graph)
        self.close()
        self.status = GraphStatus("ready")
        logger.info("Steps run compiled, after %.1f s", time.monotonic() - start)

    def _attempt(self, graph: str) -> Callable[[list[Run]], Tensor]:
        """Returns a step that is run by a graph not in use yet."""

        def forward(runs: list[Run]) -> Tensor:
            self._trying = graph
            try:
                return self._runner.forward(runs)
            finally:
                self._trying = None

        return forward

    def _cache(self) -> KVCache:
        """Returns the cache of a runner that was found suitable."""
        assert isinstance(self._runner.cache, KVCache)
        return self._runner.cache

    def _find(self, part: str) -> Path | None:
        """Returns the folder of a part that was kept."""
        is_graph = part in compiler.GRAPHS
        return self._folder.find(
            compiler.entry_name(self._key, part) if is_graph else operators.entry_name()
        )

    def _first_start(self, part: str) -> str:
        """Says why steps are not compiled yet, how far that is, and until when."""
        parts = ("operators", *compiler.GRAPHS)
        return (
            f"{self._folder.kept} has no compiled code for this model and processor yet. It is "
            f"being made from processor time that is left over, part {parts.index(part) + 1} of "
            f"{len(parts)}; all of it takes minutes on an idle machine. Until then a step takes up "
            "to twice as long. Later starts find it there."
        )

    def _obtain(self, part: str) -> Generator[None, None, Path]:
        """Returns a part's folder, as it was kept or once the compiling process has made it.

        Raises:
            Unavailable: it cannot be made.
        """
        found = self._find(part)
        if found is not None:
            return found
        self.status = GraphStatus("compiling", self._first_start(part))
        if self._compilation is None:
            start = time.monotonic()
            while time.monotonic() - start < START_DELAY_S:
                yield
            assert self._recipe is not None
            self._compilation = Compilation(self._recipe, self._folder.writable())
        while True:
            said = self._compilation.poll()
            if isinstance(said, compiler.Failed):
                raise Unavailable(said.reason)
            if said is not None and said.name == part:
                return Path(said.folder)
            yield


class Unavailable(Exception):
    """A part cannot be made. The message says why."""


def unsuitable(model: PreTrainedModel, runner: CachingRunner) -> str | None:
    """Returns why a model's steps cannot be compiled, or None."""
    if not isinstance(runner.cache, KVCache):
        return "The model takes the compat path."
    decoder = model.base_model
    if decoder is model:
        return f"{type(model).__name__} has no decoder apart from its head."
    if model.dtype not in (torch.float32, torch.bfloat16):
        return f"The attention kernel does not support {model.dtype}."
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return "The model is not on the CPU."
    if any(has_hooks(module) for module in model.modules()):
        return "Modules of the model have hooks."
    for layer in runner.cache.slot_layers:
        assert layer.k is not None
        assert layer.v is not None
        sizes = {layer.k.data.shape[-1], layer.v.data.shape[-1]}
        if len(sizes) > 1 or not sizes <= operators.HEAD_SIZES:
            return f"The attention kernel does not support heads of size {sorted(sizes)}."
    return None


def has_hooks(module: nn.Module) -> bool:
    """Whether calling a module does more than its code says."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_hf_hook")
    return any(getattr(module, name, None) for name in hooks)
