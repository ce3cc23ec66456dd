"""A bar on the error output while a benchmark runs; plain lines where rich is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# tick(what is going on, how much of a unit of work is done since the last tick)
Tick = Callable[[str, float], None]


@contextmanager
def bar(total: float) -> Iterator[Tick]:
    """`total` units of work."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    except ImportError:
        yield _lines(total)
        return
    columns = (BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        task = progress.add_task("", total=total)
        yield lambda note, amount: progress.update(task, advance=amount, description=note)


def _lines(total: float) -> Tick:
    done, last = 0.0, ""

    def tick(note: str, amount: float) -> None:
        nonlocal done, last
        done += amount
        if note != last:
            print(f"{100 * done / total:3.0f} %  {note}", file=sys.stderr, flush=True)
            last = note

    return tick
