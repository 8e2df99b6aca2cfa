"""A bar that shows how far a call with many rows has come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def shown(name: str, total: int, *, progress: bool | None) -> Iterator[Callable[[int], None]]:
    """Yields what is called with the number of rows that are done.

    Args:
        name: what is done with the rows.
        total: how many rows there are.
        progress: whether a bar is drawn, on standard error or in the notebook.

    Raises:
        ImportError: rich is not installed.
    """
    if not progress:
        yield lambda count: None
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ModuleNotFoundError:
        raise ImportError('progress=True needs rich: pip install "lockstep-client[cli]"') from None

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    times = TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, *times, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)
