"""`sdk.load`: a bundle, opened on an engine that proved itself, ready for frames."""

from __future__ import annotations

import atexit
import dataclasses
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtimes import Array, Session, Unavailable, parse_target
from sdk.attempts import wait_for_openings
from sdk.bundle import Bundle, open_bundle
from sdk.choose import POLICIES, PRECISIONS, PREFERENCES, Wish
from sdk.embed import Embedder
from sdk.labels import LabelBank
from sdk.places import find
from sdk.ran_on import RanOn
from sdk.tasks import Answer, Scene, open_task
from sdk.tasks.search import Hit
from sdk.tower import Tower

_EXIT_S = 5.0  # seconds that the end of the program waits for an engine that is still opening something


def load(
    path: Path | str,
    on: str | None = None,
    precision: str | None = None,
    prefer: str = "latency",
    policy: str = "strict",
    cache_dir: Path | str | None = None,
    budget_s: float = 3.0,
    budget_mb: float | None = None,
) -> Student:
    """Open a bundle and its image tower; the text tower waits for the first new phrase, fusion for the first question.

    `path`: its folder, or the bare name of one that lies in a place where bundles are kept (sdk/places.py).
    `on`: a target such as "ov:cpu"; None takes the environment's PUPIL_ON. Without either, the first target that
    answers the bundle's golden inputs rightly serves at once, and a thread measures the others for `budget_s` seconds
    (0: not at all), in which the process may grow by `budget_mb` MB (None: without limit); frames move to the best.
    `precision`: "fp32" (computed in f32), "bf16", "fp16", "int8"; None leaves it to bundle, engine and measuring.
    `prefer`: "latency" of a frame; "throughput" of frames from as many threads as there are cores; "memory".
    `policy`: "strict" runs on `on` or raises, and raises when the engine fails; "degrade" goes on with another target
    then, which `ran_on` and `degraded` in every result say. `cache_dir`: where engines may keep compiled graphs, and
    the measured choice is remembered until the bundle, the machine or an engine's version changes; None keeps nothing.

    Raises BundleError for a bundle that is damaged or too new, Unavailable for a target or precision that is not here,
    VerifyError when an engine answers wrongly.
    """
    for name, value, known in (
        ("prefer", prefer, PREFERENCES),
        ("policy", policy, POLICIES),
        ("precision", precision, (None, *PRECISIONS)),
    ):
        if value not in known:
            raise Unavailable(f"{name}={value!r} is not known; choose one of: {', '.join(map(repr, known))}")
    for name, budget in (("budget_s", budget_s), ("budget_mb", 0 if budget_mb is None else budget_mb)):
        if not isinstance(budget, int | float) or not budget >= 0:
            raise Unavailable(f"{name}={budget!r} is no budget; give a number from 0")
    cache = Path(cache_dir) if cache_dir is not None else None
    wish = Wish(_target(on), precision, prefer, policy, cache, budget_s, budget_mb)
    return Student(open_bundle(find(path)), wish)


def _target(on: object) -> str | None:
    """The target asked for, as the runtimes write it. Raises Unavailable."""
    said = ""
    if on is None:
        on = os.environ.get("PUPIL_ON") or None
        said = "PUPIL_ON: "
    if on is None:
        return None
    if not isinstance(on, str):
        raise Unavailable(f"on={on!r} is not a target; write runtime:device[.index], such as 'ov:cpu'")
    try:
        return str(parse_target(on))
    except Unavailable as error:
        raise Unavailable(f"{said}{error}") from None


class Student:
    """A loaded bundle. Threads may share it; a forked child may not. Close it, or use it in a `with` block."""

    def __init__(self, bundle: Bundle, wish: Wish) -> None:
        self.bundle = bundle
        self._wish = wish
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._towers: dict[str, Tower] = {}
        self._tasks: dict[str, Callable[..., Any]] = {}
        self._closed = False
        # Measuring goes on in threads that hold the towers: it ends with the student.
        self._ended = weakref.finalize(self, _end, self._towers, self._process)
        self._ended.atexit = False  # see _at_exit
        _LOADED.add(self)
        self._embed = Embedder(bundle, self.run)
        self.labels = LabelBank(bundle, self._embed.texts)
        self._scene = Scene(bundle, self.run, self._embed, self.labels)
        # The golden inputs that choose the target also warm it up: the app's first frame is a steady-state frame.
        self._tower("image")

    @property
    def ran_on(self) -> Mapping[str, RanOn]:
        """Per opened tower: target, variant, compute, why, and what else was tried, its error, its time, why it lost.

        It changes while others are measured (see `settle`), and when an engine fails under the policy to degrade.
        """
        return MappingProxyType({name: tower.ran_on for name, tower in self._towers.copy().items()})

    @property
    def degraded(self) -> str:
        """Which tower runs on something else than it was meant to, and why; "" while none does."""
        return "; ".join(tower.degraded for tower in self._towers.copy().values() if tower.degraded)

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is opened or measured any more for the towers opened so far, `timeout` seconds for each at
        most (None: for ever). Says whether it is so."""
        return min((tower.settle(timeout) for tower in self._towers.copy().values()), default=True)

    def task(self, name: str) -> Callable[..., Any]:
        """The task `name` as a callable. Raises Unavailable when the bundle or this SDK does not have it."""
        if name not in self._tasks:  # finding a task lists a folder, which costs as much as a small student's inference
            task = open_task(name, self._scene)
            self._tasks[name] = task if self._wish.policy == "strict" else self._telling(task)
        return self._tasks[name]

    def classify(
        self, frame: object, labels: Sequence[str] | None = None, k: int = 1, color: str = "rgb", groups: bool = False
    ) -> list[Answer] | list[list[Answer]]:
        """The k labels that fit a frame best, best first; a list of frames gives a list of lists.

        A frame is a uint8 (H, W, 3) RGB array (`color="bgr"` for OpenCV's), grey (H, W), RGBA, a path, bytes of an
        encoded image, or anything with an array interface. `labels=None` means the label bank. With `groups` the
        answers are groups: the score of one is the sum of its labels'. Ties stay in label order. Raises FeedError.
        """
        answers: list[Answer] | list[list[Answer]] = self.task("classify")(frame, labels, k, color, groups)
        return answers

    def search(self, query: object, among: NDArray[np.float32], k: int = 5, color: str = "rgb") -> list[Hit]:
        """The k rows of `among` nearest to a text (a str) or to a frame (as in `classify`, a file as a Path), best
        first, ties in order.

        `among`: float32 (N, D), unit norm, made by `embed_images` or `embed_texts` of this student. Raises FeedError,
        or Unavailable for a text without a text tower and in a bundle that was not made for it.
        """
        hits: list[Hit] = self.task("search")(query, among, k, color)
        return hits

    def ask(self, frame: object, question: str | Sequence[str], color: str = "rgb") -> Answer | list[Answer]:
        """The answer to a question about one frame (see `classify`), from the bundle's own answers, with its softmax
        score; a list of questions gives a list. The image is read once for all of them.

        Raises FeedError, or Unavailable in a bundle that was not made for questions.
        """
        answers: Answer | list[Answer] = self.task("ask")(frame, question, color)
        return answers

    def embed_images(self, frames: object, color: str = "rgb") -> NDArray[np.float32]:
        """Frames (see `classify`) to float32 (N, D), unit norm. Raises FeedError."""
        vectors: NDArray[np.float32] = self.task("embed_images")(frames, color)
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to float32 (N, D), unit norm. Raises FeedError, or Unavailable without a text tower."""
        vectors: NDArray[np.float32] = self.task("embed_texts")(texts)
        return vectors

    def run(self, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a tower ("image", "text", "fusion") over N rows of feeds, one by one: sessions hold a batch of one.

        Raises FeedError; Unavailable after `close`, in a forked child, or when the engine fails and the policy is
        strict or nothing else is left.
        """
        return self._tower(graph).run(feeds)

    def close(self) -> None:
        """Release the engines; what is being measured ends. Afterwards every call raises Unavailable."""
        if os.getpid() != self._process:  # a forked child has nothing of its own here, and nobody to wait for
            return
        with self._lock:
            self._closed = True
            self._ended.detach()
            _end(self._towers, self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tower(self, name: str) -> Tower:
        if os.getpid() != self._process:
            raise Unavailable(
                "this process was forked after the bundle was loaded, and engines do not survive a fork; "
                "start the child with multiprocessing's 'spawn'"
            )
        tower = self._towers.get(name)
        if tower is not None:
            return tower
        with self._lock:
            if self._closed:
                raise Unavailable("this student is closed; load the bundle again")
            if name not in self._towers:
                self._towers[name] = Tower(self.bundle, name, self._wish, self._turn)
            return self._towers[name]

    def _session(self, tower: str) -> Session:
        """What serves a tower now; benchmarks hold it against the bare engine."""
        return self._tower(tower).session

    def _telling(self, task: Callable[..., Any]) -> Callable[..., Any]:
        """A task whose results say what it ran on instead, while that is so."""

        def told(*args: Any, **kwargs: Any) -> Any:
            found = task(*args, **kwargs)
            degraded = self.degraded
            return _marked(found, degraded) if degraded else found

        return told


def _marked(found: Any, degraded: str) -> Any:
    """A result, or lists of them, with `degraded` filled in; arrays have no place for it."""
    if isinstance(found, list):
        return [_marked(each, degraded) for each in found]
    if dataclasses.is_dataclass(found) and hasattr(found, "degraded"):
        return dataclasses.replace(found, degraded=degraded)  # type: ignore[type-var]
    return found


def _end(towers: dict[str, Tower], process: int) -> None:
    """Close towers: all stop measuring first, since they wait for each other's turn."""
    if os.getpid() != process:
        return
    for tower in towers.values():
        tower.stop()
    for tower in towers.values():
        tower.close()
    towers.clear()


_LOADED: weakref.WeakSet[Student] = weakref.WeakSet()


def _at_exit() -> None:
    """An engine that is still at work in a thread when the program tears it down may take the program down with it."""
    for student in list(_LOADED):
        _end(student._towers, student._process)
    wait_for_openings(_EXIT_S)


atexit.register(_at_exit)
