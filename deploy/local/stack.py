"""Both services together: the model service follows the tokenizer service's vocabulary."""

import fcntl
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from deploy.local.service import Address, Service, ServiceFailed

LISTEN_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 600.0  # a large model on a slow disk
STOP_TIMEOUT_S = 30.0


class Stack:
    """Starts both services on entry and leaves no process on exit.

    Attributes:
        tokenizer, model: where they listen, once entered.
        killed: ids of processes that had to be killed on exit. Empty when all went well.
    """

    tokenizer: Address
    model: Address
    _claim: TextIO

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        tokenizer_flags: Sequence[str] = (),
        model_flags: Sequence[str] = (),
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Prepares the start.

        Args:
            folder: where the logs go; made if it does not exist.
            model: what both services load: a folder, GGUF file, hub id or the default's name.
            tokenizer_flags: further flags of the tokenizer service.
            model_flags: further flags of the model service.
            report: is told what is being waited for.
        """
        self.folder = folder
        self.killed: list[int] = []
        self._name = model
        self._tokenizer_flags = tokenizer_flags
        self._model_flags = model_flags
        self._report = report
        self._services: list[Service] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim = _claim(self.folder)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Raises `ServiceFailed` if a service has ended."""
        for service in self._services:
            service.check()

    def _start(self) -> None:
        self._report("Starting the tokenizer service")
        tokenizer = self._run("tokenizer_service", self._tokenizer_flags)
        self.tokenizer = tokenizer.address(LISTEN_TIMEOUT_S)
        self._report("Starting the model service")
        follow = ("--tokenizer-address", self.tokenizer.target)
        model = self._run("model_service", (*follow, *self._model_flags))
        self.model = model.address(LISTEN_TIMEOUT_S)
        self._claim.write(f"tokenizer {self.tokenizer.target}, model {self.model.target}")
        self._claim.flush()
        self._report("Loading the tokenizer")
        tokenizer.wait_ready(self.tokenizer, READY_TIMEOUT_S)
        self._report("Loading the model")
        model.wait_ready(self.model, READY_TIMEOUT_S)

    def _run(self, module: str, flags: Sequence[str]) -> Service:
        # The services keep the claim, too: if we are killed, they are still up.
        keeps = (self._claim.fileno(),)
        service = Service(module, ("--model", self._name, *flags), self.folder, keeps)
        self._services.append(service)
        return service

    def _stop(self) -> None:
        """Stops the model service first: it follows the tokenizer service."""
        while self._services:
            self.killed += self._services.pop().stop(STOP_TIMEOUT_S)
        self._claim.close()


def _claim(folder: Path) -> TextIO:
    """Takes a folder for one stack, so that no other one writes over its logs.

    Returns:
        The file that is locked until it is closed, for the addresses of the services.

    Raises:
        ServiceFailed: another stack is up in it.
    """
    file = (folder / "addresses").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        where = file.read() or "it is still starting"
        file.close()
        raise ServiceFailed(
            f"Lockstep is up already in {folder}: {where}. Use it, or stop it first."
        ) from None
    file.truncate(0)
    return file
