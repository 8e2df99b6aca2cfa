"""How many threads an operator of torch uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Keeps operators to this thread, for work on a single row.

    A row is little work, and a second thread gains little at it; one that has lost its core to a
    neighbour is waited for at every operator. The switch costs less than a microsecond. What comes
    out no longer depends on the number of threads, into whose parts a sum would be split.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
