"""Which label fits a frame best: zero-shot classification by cosine in the joint space (CLIP, Radford et al. 2021)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from runtimes import FeedError
from sdk.golden import softmax
from sdk.labels import LabelSet
from sdk.manifest import ScoreSpec
from sdk.tasks import Answer, Scene, one_or_many


def task(scene: Scene) -> Callable[..., list[Answer] | list[list[Answer]]]:
    """`(frame or frames, labels=None, k=1, color="rgb")`: the k best labels, best first; a list of frames gives a list.

    `labels=None` chooses from the label bank. Raises FeedError.
    """

    def classify(
        frame: object, labels: Sequence[str] | None = None, k: int = 1, color: str = "rgb"
    ) -> list[Answer] | list[list[Answer]]:
        try:
            count = operator.index(k)  # NumPy's whole numbers are none of Python's
        except TypeError:
            count = 0
        if count < 1:
            raise FeedError(f"k must be a whole number from 1, but is {k!r}")
        chosen = scene.labels.resolve(labels) if labels is not None else scene.labels.current
        if not chosen.names:
            raise FeedError("the label bank is empty; fill it with student.labels.replace([...]), or give labels=[...]")
        frames, alone = one_or_many(frame)
        vectors = scene.embed.images(frames, color)
        ranked = [best(row, chosen, count) for row in scores(vectors, chosen.vectors, scene.bundle.manifest.score)]
        return ranked[0] if alone else ranked

    return classify


def scores(images: NDArray[np.float32], labels: NDArray[np.float32], spec: ScoreSpec) -> NDArray[np.float64]:
    """Unit embeddings (N, D) and (K, D) to scores (N, K) in 0..1: softmax over labels (CLIP) or sigmoid (SigLIP)."""
    # Not `@`: BLAS rounds a cosine by its place in the matrix, so equal labels would not tie.
    cosines = np.einsum("nd,kd->nk", images, labels)
    logits = spec.logit_scale * cosines.astype(np.float64) + spec.logit_bias
    if spec.kind == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float64)
    return softmax(logits)


def best(row: NDArray[np.float64], labels: LabelSet, k: int) -> list[Answer]:
    """The k best of scores (K,), best first; ties stay in bank order."""
    # The one best is the common question: the first maximum, without sorting the rest.
    order = [int(row.argmax())] if k == 1 else np.argsort(-row, kind="stable")[:k].tolist()
    return [Answer(labels.names[i], float(row[i]), labels.unknown[i]) for i in order]
