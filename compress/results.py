"""What pack measured: every answer of teacher and student, and the figures that their bundles carry of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Result
from benchmarks.shop import shop_figures
from benchmarks.stats import clustered, wilson
from sdk.manifest import Figure


@dataclass(frozen=True)
class Measured:
    """`results`: (who, precision, target) -> what was answered. `table`: every figure but sizes, as JSON. `headline`:
    who ("teacher", "student") -> the key in `results` of what stands for it. `asked`: the image of each question, int64
    (M,). `evalset`: on which all this was answered."""

    results: dict[tuple[str, str, str], Result]
    table: dict[str, Any]
    headline: dict[str, tuple[str, str, str]]
    asked: NDArray[np.int64]
    evalset: EvalSet

    def wrong(self, who: str) -> dict[str, tuple[int, int]]:
        """Class -> (labelled images that `who` got wrong, labelled images)."""
        label = self.evalset.label[self.evalset.label >= 0]
        wrong = ~self.results[self.headline[who]].correct
        return {
            name: (int(wrong[label == k].sum()), int((label == k).sum())) for k, name in enumerate(self.evalset.labels)
        }

    def quality(self, who: str) -> dict[str, Figure]:
        """The figures of `who` ("teacher", "student") that its bundle carries."""
        result = self.results[self.headline[who]]
        found = {"zero_shot.top1": wilson(result.correct), "text_to_image.map": result.retrieval.figure()}
        if result.answered is not None:
            found["answers.accuracy"] = clustered(result.answered, self.asked)
        return found | shop_figures(result)


def asked_of(evalset: EvalSet) -> NDArray[np.int64]:
    """int64 (M,): the image of each question. Questions of an image fail together, so intervals draw images."""
    return np.array([image for image, _, _ in evalset.questions], np.int64)
