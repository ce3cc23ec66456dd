"""`sdk.load`: a bundle, opened on an engine that proved itself, ready for frames."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtimes import Array, FeedError, Session, Unavailable, parse_target
from sdk.bundle import Bundle, open_bundle
from sdk.choose import PRECISIONS, RanOn, Wish, open_tower
from sdk.embed import Embedder
from sdk.labels import LabelBank
from sdk.places import find
from sdk.tasks import Answer, Scene, open_task
from sdk.tasks.search import Hit


def load(
    path: Path | str,
    on: str | None = None,
    precision: str | None = None,
    prefer: str = "latency",
    policy: str = "strict",
    cache_dir: Path | str | None = None,
) -> Student:
    """Open a bundle and its image tower; the text tower waits for the first new phrase, fusion for the first question.

    `path`: its folder, or the bare name of one that lies in a place where bundles are kept (sdk/places.py).
    `on`: a target such as "ov:cpu"; None takes the first that answers the bundle's golden inputs rightly.
    `precision`: "fp32" (computed in f32), "bf16", "fp16", "int8"; None lets the bundle and the engine decide.
    `prefer`: only "latency" in this version. `policy`: "strict" runs on `on` or raises; "degrade" falls back to another
    target when `on` cannot be opened, and `ran_on` says so. `cache_dir`: where engines may keep compiled graphs.

    Raises BundleError for a bundle that is damaged or too new, Unavailable for a target or precision that is not here,
    VerifyError when an engine answers wrongly.
    """
    for name, value, known in (
        ("prefer", prefer, ("latency",)),
        ("policy", policy, ("strict", "degrade")),
        ("precision", precision, (None, *PRECISIONS)),
    ):
        if value not in known:
            raise Unavailable(f"{name}={value!r} is not known; choose one of: {', '.join(map(repr, known))}")
    cache = Path(cache_dir) if cache_dir is not None else None
    if on is not None and not isinstance(on, str):
        raise Unavailable(f"on={on!r} is not a target; write runtime:device[.index], such as 'ov:cpu'")
    target = str(parse_target(on)) if on is not None else None
    return Student(open_bundle(find(path)), Wish(target, precision, policy, cache))


class Student:
    """A loaded bundle. Threads may share it; a forked child may not. Close it, or use it in a `with` block."""

    def __init__(self, bundle: Bundle, wish: Wish) -> None:
        self.bundle = bundle
        self._wish = wish
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._ran_on: dict[str, RanOn] = {}
        self._tasks: dict[str, Callable[..., Any]] = {}
        self._closed = False
        self._embed = Embedder(bundle, self.run)
        self.labels = LabelBank(bundle, self._embed.texts)
        self._scene = Scene(bundle, self.run, self._embed, self.labels)
        # The golden inputs that choose the target also warm it up: the app's first frame is a steady-state frame.
        self._session("image")

    @property
    def ran_on(self) -> Mapping[str, RanOn]:
        """Per opened tower: target, variant, compute, why, and what was tried before."""
        return MappingProxyType(self._ran_on)

    def task(self, name: str) -> Callable[..., Any]:
        """The task `name` as a callable. Raises Unavailable when the bundle or this SDK does not have it."""
        if name not in self._tasks:  # finding a task lists a folder, which costs as much as a small student's inference
            self._tasks[name] = open_task(name, self._scene)
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

        Raises FeedError, or Unavailable after `close`, in a forked child, or when the engine fails.
        """
        session = self._session(graph)
        if len(feeds) == 1:  # an image: the session itself refuses what is not one row
            (array,) = feeds.values()
            if array.shape[:1] == (1,):
                return session.run(feeds)
        count = max((len(array) for array in feeds.values() if array.ndim), default=0)
        if count == 0 or any(array.shape[:1] != (count,) for array in feeds.values()):
            came = {name: array.shape for name, array in feeds.items()}
            raise FeedError(f"the {graph} tower takes feeds of the same number of rows, at least one, but {came} came")
        if count == 1:
            return session.run(feeds)
        rows = [session.run({name: array[i : i + 1] for name, array in feeds.items()}) for i in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def close(self) -> None:
        """Release the engines. Afterwards every call raises Unavailable."""
        with self._lock:
            self._closed = True
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _session(self, tower: str) -> Session:
        if os.getpid() != self._process:
            raise Unavailable(
                "this process was forked after the bundle was loaded, and engines do not survive a fork; "
                "start the child with multiprocessing's 'spawn'"
            )
        session = self._sessions.get(tower)
        if session is not None:
            return session
        with self._lock:
            if self._closed:
                raise Unavailable("this student is closed; load the bundle again")
            if tower not in self._sessions:
                self._sessions[tower], self._ran_on[tower] = open_tower(self.bundle, tower, self._wish)
            return self._sessions[tower]
