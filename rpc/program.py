"""Runs a service as the program of a process, which ends while its server still answers.

gRPC resets the calls of a server that is stopped when they have arrived and have no
handler yet: CANCELLED, without details, for callers that cancelled nothing, and no
retry policy repeats it. Under load there is always such a call. So nothing is
stopped: calls are refused, with details, until the process ends, and what is on its
way then breaks with its connection: UNAVAILABLE, which callers repeat.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

from rpc import heap

EXIT_FAILED = 1


def run(service: Coroutine[Any, Any, int | str]) -> NoReturn:
    """Runs a service and ends the process with the exit code that it returns.

    If it returns why it failed, a terminal shows that, too, below the lines of the log.

    Nothing of Python is torn down, as that would stop the server: what has to be
    cleaned up, the service cleans up before it returns.
    """
    heap.keep_small()
    runner = asyncio.Runner()
    try:
        code: int | str = runner.run(service)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = EXIT_FAILED
    logging.shutdown()
    if isinstance(code, str):
        if sys.stderr.isatty():  # as it is again, and no pipe to the log
            sys.stderr.write(f"{code}\n")
        code = EXIT_FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
