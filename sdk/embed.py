"""Frames and texts into the joint space: prepare, run the tower, normalise in float32."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtimes import Array, FeedError, Unavailable
from sdk.bundle import Bundle
from sdk.frames import Frame, read_frame
from sdk.golden import unit_rows
from sdk.resize import least_side, prepare

if TYPE_CHECKING:
    from sdk.text import Tokenizer, Tokens

Run = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]


class Embedder:
    """Embeds with one bundle through `run(graph, feeds)`; knows no runtime. Safe to call from several threads."""

    def __init__(self, bundle: Bundle, run: Run) -> None:
        self._spec = bundle.manifest.image
        self._shape = (self._spec.size, self._spec.size, 3)
        self._bundle = bundle
        self._run = run
        self._dim = bundle.manifest.dim
        self._lock = threading.Lock()
        self._tokenizer: Tokenizer | None = None

    def prepare(self, frame: object, color: str = "rgb") -> Frame:
        """One frame of any accepted kind to the model's uint8 (S, S, 3) RGB; for `area`, a large JPEG is read smaller.

        Raises FeedError.
        """
        # Turning OpenCV's channels round costs more than the resize, unless there are few pixels left.
        later = color == "bgr" and isinstance(frame, np.ndarray)
        ready = read_frame(frame, "rgb" if later else color, least=least_side(self._spec.size, self._spec.resize))
        if ready.shape != self._shape:
            ready = prepare(ready, self._spec.size, self._spec.resize, self._spec.crop)
        return read_frame(ready, color) if later else ready

    def images(self, frames: Sequence[object], color: str = "rgb") -> NDArray[np.float32]:
        """Embed N frames: float32 (N, D), unit norm. Raises FeedError naming the frame that cannot be used."""
        if len(frames) == 1:  # a frame at a time is the rule, and counted in microseconds
            return self._normalised("image", {"image": self.prepare(frames[0], color)[None]})
        feeds = []
        for index, frame in enumerate(frames):
            try:
                feeds.append(self.prepare(frame, color))
            except FeedError as error:
                raise FeedError(f"frame {index}: {error}") from error
        if not feeds:
            return np.zeros((0, self._dim), np.float32)
        return self._normalised("image", {"image": np.stack(feeds)})

    def texts(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], tuple[int, ...]]:
        """Embed N texts: float32 (N, D), unit norm, and per text the number of tokens the tokenizer did not know.

        Raises FeedError for an empty text or none at all as str, Unavailable in a bundle without a text tower.
        """
        if isinstance(texts, str):
            raise FeedError("texts must be a list of str, but one str came; write [text]")
        if not isinstance(texts, Iterable):
            raise FeedError(f"texts must be a list of str, but {type(texts).__name__} came")
        texts = list(texts)
        if not texts:
            return np.zeros((0, self._dim), np.float32), ()
        tokens = self.tokens(texts)
        return self._normalised("text", {"ids": tokens.ids, "mask": tokens.mask}), tokens.unknown

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Tokenize N texts. Raises FeedError for an empty text, Unavailable in a bundle without a text tower."""
        with self._lock:
            if self._tokenizer is None:
                from sdk.text import Tokenizer  # a box that sees no new phrase does without

                self._tokenizer = Tokenizer.of(self._bundle)
        return self._tokenizer(texts)

    def _normalised(self, tower: str, feeds: Mapping[str, Array]) -> NDArray[np.float32]:
        raw = self._run(tower, feeds)["embedding"]
        if len(raw) == 1:  # one pass, no masks
            wide = raw.astype(np.float64)
            square = float(np.vdot(wide, wide))
            if not 0 < square < math.inf:
                raise Unavailable(_unusable(tower))
            return np.asarray(wide / math.sqrt(square), np.float32)
        if not np.isfinite(raw).all() or not raw.any(axis=1).all():
            raise Unavailable(_unusable(tower))
        return unit_rows(raw)


def _unusable(tower: str) -> str:
    return f"the {tower} tower gave a zero or non-finite embedding; run: python -m sdk verify BUNDLE"
