"""Makes JSON lines of all that is written to stderr: by loggers, C libraries, child processes."""

import json
import logging
import os
import sys
import threading
from types import TracebackType
from typing import TextIO

import structlog

_END = b"\0the end of what is captured\n"
_END_S = 1.0
_LINE_BYTES = 1 << 16

_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


def configure(level: str) -> None:
    """Sends structlog and the standard library's loggers to stderr as JSON lines.

    Args:
        level: the lowest level written, such as `info`.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("event"),
            structlog.processors.JSONRenderer(),
        ],
    )
    stderr = _Stderr(sys.stderr)
    stderr.setFormatter(formatter)
    stderr.addFilter(_is_news)
    logging.basicConfig(level=threshold, handlers=[stderr], force=True)


def adopt_warnings() -> None:
    """Makes Python's warnings, and the error that ends this process, lines of the log."""
    logging.captureWarnings(True)
    sys.excepthook = _log_crash


def capture() -> None:
    """Makes a JSON line of every line that others write to stderr. After `configure`, once.

    Lines that are JSON already, such as the engine's, pass unchanged.
    """
    adopt_warnings()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, _Stderr)
    handler.capture()


def _is_news(record: logging.LogRecord) -> bool:
    """Leaves out the error that gRPC logs when a caller leaves just as its answer is sent.

    That call has its line, as any other.
    """
    error = record.exc_info[1] if record.exc_info else None
    return record.name != "grpc._cython.cygrpc" or type(error).__name__ != "ExecuteBatchError"


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to stderr, and what others write there, too, until `logging.shutdown`."""

    _relay: threading.Thread | None = None

    def capture(self) -> None:
        """Makes descriptor 2 a pipe, also of processes started from now on, and reads it."""
        self.setStream(os.fdopen(os.dup(2), "w", buffering=1))
        source, sink = os.pipe()
        os.dup2(sink, 2)
        os.close(sink)
        self._relay = threading.Thread(target=self._read, args=(source,), daemon=True)
        self._relay.start()

    def close(self) -> None:
        """Writes what is left. Children that live on write to stderr itself from now on."""
        if self._relay is not None:
            os.write(2, b"\n" + _END)
            os.dup2(self.stream.fileno(), 2)
            self._relay.join(_END_S)
            self._relay = None
        super().close()

    def _read(self, source: int) -> None:
        # Without the lock of the handler, which is held while it is closed: a line is one write.
        with os.fdopen(source, "rb") as lines:
            while (line := lines.readline(_LINE_BYTES)) and not line.endswith(_END):
                text = line.decode(errors="replace").rstrip()
                text = text.rsplit("\r", 1)[-1]  # what a progress bar showed last
                if text and not _is_json(text):
                    # Whatever the level: a process that dies has no other last words.
                    record = ("stderr", logging.WARNING, "", 0, text, None, None)
                    text = self.format(logging.LogRecord(*record))
                if text:
                    os.write(self.stream.fileno(), f"{text}\n".encode())


def _is_json(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _log_crash(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    logging.getLogger().critical("crashed", exc_info=(kind, error, traceback))
