"""What can be measured: a bundle opened by the SDK, or the PyTorch programs that lie beside a teacher's bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

import runtimes
from runtimes import Array, Session, Unavailable
from sdk.bundle import Bundle
from sdk.embed import Embedder
from sdk.labels import LabelBank
from sdk.ran_on import RanOn
from sdk.tasks import Scene, open_task


class Model(Protocol):
    """The part of `sdk.Student` that is measured."""

    @property
    def bundle(self) -> Bundle: ...

    @property
    def labels(self) -> LabelBank: ...

    @property
    def ran_on(self) -> Mapping[str, RanOn]: ...

    def task(self, name: str) -> Callable[..., Any]: ...

    def run(self, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def programs_beside(image: Path, towers: tuple[str, ...]) -> dict[str, Path]:
    """Programs of a teacher by tower: `teacher.pt2` for the image, `teacher.text.pt2`, `teacher.fusion.pt2`.

    Raises Unavailable naming the first that is not there.
    """
    found = {t: image if t == "image" else image.with_name(f"{image.stem}.{t}{image.suffix}") for t in towers}
    for tower, path in found.items():
        if not path.is_file():
            raise Unavailable(
                f"there is no program {path} of the {tower} tower; let compress.distill write it, or give --program"
            )
    return found


class Programs:
    """The tasks of a bundle, its towers replaced by programs on a `pt:` target. Labels, tokenizer and sizes are the
    bundle's. Opening runs code from the files: see runtimes/pt.py."""

    def __init__(self, bundle: Bundle, programs: Mapping[str, Path], target: str, precision: str | None = None) -> None:
        """`programs`: tower -> .pt2; `precision` as in `runtimes.open_session`. Raises Unavailable."""
        self.bundle = bundle
        self._sessions: dict[str, Session] = {}
        with ExitStack() as stack:
            for tower, path in programs.items():
                session = runtimes.open_session(target, path, batch=1, precision=precision)
                stack.callback(session.close)
                _check_ports(bundle, tower, session, path)
                self._sessions[tower] = session
            stack.pop_all()
        embed = Embedder(bundle, self.run)
        self.labels = LabelBank(bundle, embed.texts)
        self._scene = Scene(bundle, self.run, embed, self.labels)
        self._tasks: dict[str, Callable[..., Any]] = {}

    @property
    def ran_on(self) -> Mapping[str, RanOn]:
        """Per tower: target, variant (`pt2`), compute."""
        return {t: RanOn(str(s.target), "pt2", s.compute, "asked for") for t, s in self._sessions.items()}

    def task(self, name: str) -> Callable[..., Any]:
        """As `sdk.Student.task`."""
        if name not in self._tasks:
            self._tasks[name] = open_task(name, self._scene)
        return self._tasks[name]

    def run(self, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """As `sdk.Student.run`: row by row, for that is how frames come. Raises Unavailable for a tower without one."""
        if graph not in self._sessions:
            raise Unavailable(f"there is no program of the {graph} tower of {self.bundle.path}; export one")
        session = self._sessions[graph]
        count = len(next(iter(feeds.values())))
        rows = [session.run({name: array[i : i + 1] for name, array in feeds.items()}) for i in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def close(self) -> None:
        """Release the programs."""
        for session in self._sessions.values():
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_ports(bundle: Bundle, tower: str, session: Session, path: Path) -> None:
    """A program must be this bundle's: same names, dtypes and sizes as the tower's graphs."""
    graph = next(iter(bundle.variants(tower).values()))
    for side, got, wanted in (
        ("takes", session.inputs, graph.inputs),
        ("gives", session.outputs, graph.outputs),
    ):
        ours, theirs = ({n: (p.dtype, tuple(p.shape[1:])) for n, p in ports.items()} for ports in (wanted, got))
        if ours != theirs:
            raise Unavailable(
                f"{path} {side} {theirs}, but the {tower} tower of {bundle.path} {side} {ours}; "
                "it is the program of another model"
            )
