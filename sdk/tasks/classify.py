"""Which label fits a frame best: zero-shot classification by cosine in the joint space (CLIP, Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from runtimes import FeedError
from sdk.golden import softmax
from sdk.label_set import Grouping, LabelSet
from sdk.manifest import ScoreSpec
from sdk.tasks import Answer, Scene, cosines, count_of, one_or_many


def task(scene: Scene) -> Callable[..., list[Answer] | list[list[Answer]]]:
    """`(frame or frames, labels=None, k=1, color="rgb", groups=False)`: the k best labels, best first; a list of frames
    gives a list. With `groups` the answers are groups of labels.

    `labels=None` chooses from the label bank. Raises FeedError.
    """
    spec, threshold = scene.bundle.manifest.score, scene.bundle.manifest.unknown_threshold

    def classify(
        frame: object, labels: Sequence[str] | None = None, k: int = 1, color: str = "rgb", groups: bool = False
    ) -> list[Answer] | list[list[Answer]]:
        count = count_of(k)
        chosen = scene.labels.resolve(labels) if labels is not None else scene.labels.current
        if not chosen.names:
            raise FeedError("the label bank is empty; fill it with student.labels.replace([...]), or give labels=[...]")
        frames, alone = one_or_many(frame)
        near = cosines(scene.embed.images(frames, color), chosen.vectors)
        rows = scored(near, spec)
        among: LabelSet | Grouping = chosen
        if groups:
            among = chosen.by_group
            rows = among.summed(rows)
        ranked = [
            best(row, among, count, threshold is None or float(cosine.max()) >= threshold)
            for row, cosine in zip(rows, near, strict=True)
        ]
        return ranked[0] if alone else ranked

    return classify


def scores(images: NDArray[np.float32], labels: NDArray[np.float32], spec: ScoreSpec) -> NDArray[np.float64]:
    """Unit embeddings (N, D) and (K, D) to scores (N, K) in 0..1, as `scored` does."""
    return scored(cosines(images, labels), spec)


def scored(near: NDArray[np.float32], spec: ScoreSpec) -> NDArray[np.float64]:
    """Cosines (N, K) to scores (N, K) in 0..1: softmax over labels (CLIP) or sigmoid (SigLIP)."""
    logits = spec.logit_scale * near.astype(np.float64) + spec.logit_bias
    if spec.kind == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float64)
    return softmax(logits)


def best(row: NDArray[np.float64], labels: LabelSet | Grouping, k: int, known: bool = True) -> list[Answer]:
    """The k best of scores (K,), best first; ties stay in bank order. `known` as in Answer."""
    # The one best is the common question: the first maximum, without sorting the rest.
    order = [int(row.argmax())] if k == 1 else np.argsort(-row, kind="stable")[:k].tolist()
    return [Answer(labels.names[i], float(row[i]), labels.unknown[i], known=known) for i in order]
