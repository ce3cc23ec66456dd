"""Labels as `classify` sees them: one consistent set, never changed, and the groups they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grouping:
    """G groups of K labels, in the order of their first label. `unknown`: per group, that of its labels together.
    `place`: int64 (K,), each label's group."""

    names: tuple[str, ...]
    unknown: tuple[int, ...]
    place: NDArray[np.int64]

    def summed(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of labels (N, K) to scores of groups (N, G): a group's is the sum of its labels'."""
        rows = [np.bincount(self.place, weights=row, minlength=len(self.names)) for row in scores]
        return np.array(rows, np.float64).reshape(len(scores), len(self.names))


@dataclass(frozen=True)
class LabelSet:
    """Labels in order; `vectors` float32 (K, D), unit norm; `unknown`: per label, tokens the tokenizer did not know;
    `groups`: per label, the name of its group, "" where it has none."""

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    unknown: tuple[int, ...]
    groups: tuple[str, ...]

    @cached_property
    def by_group(self) -> Grouping:
        """The groups of these labels. A label without one is a group of its own, under its own name."""
        own = [group or name for name, group in zip(self.names, self.groups, strict=True)]
        at = {name: index for index, name in enumerate(dict.fromkeys(own))}
        place = np.array([at[name] for name in own], np.int64)
        unknown = np.bincount(place, weights=self.unknown, minlength=len(at))
        return Grouping(tuple(at), tuple(int(count) for count in unknown), place)

    def rows(self, places: Sequence[int]) -> LabelSet:
        """The labels at `places`, in that order."""
        return LabelSet(
            tuple(self.names[i] for i in places),
            self.vectors[list(places)],
            tuple(self.unknown[i] for i in places),
            tuple(self.groups[i] for i in places),
        )

    def joined(self, other: LabelSet) -> LabelSet:
        """These labels, and the others after them."""
        return LabelSet(
            (*self.names, *other.names),
            np.concatenate([self.vectors, other.vectors]),
            (*self.unknown, *other.unknown),
            (*self.groups, *other.groups),
        )
