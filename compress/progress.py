"""Progress bars with the time left: the only thing a step shows while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from compress.processes import is_main

Tick = Callable[[str], None]


@contextmanager
def bar(title: str, total: int, done: int = 0) -> Iterator[Tick]:
    """A bar of `total` ticks on the error output; `tick("loss 0.12")` moves it by one and shows the note.

    `done`: how many ticks an earlier run made; a line says so where there were any. Of several processes the main one
    shows it.

    On the error output, so that `python -m compress.distill > table.txt` keeps the table alone.
    """
    if not is_main():
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    if done:
        console.print(f"{title}: goes on after {done} of {total}", highlight=False, soft_wrap=True, markup=False)
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        task = progress.add_task(title, total=total, completed=done, note="")

        def tick(note: str) -> None:
            progress.update(task, advance=1, note=note)

        yield tick
