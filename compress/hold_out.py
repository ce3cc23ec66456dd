"""Train images that no student learns from: what a study measures on besides validation, where that is small.

`prune.hold_out` says what share of them, and the draft carries it on: whatever chooses train images for a student asks
here. The teacher has learnt from them.
"""

import numpy as np
from numpy.typing import NDArray

SEED = 2  # one for all students, so that all are measured on the same images


def held_out(label: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Positions int64 of the train images that are left out: of each label's one stretch, which starts anywhere and is
    `share` (from 0 to below 1) of them long.

    A stretch, not a draw: neighbours often show one scene, and a photo of it in training would tell too much.
    `label`: int64 (N,), in the data set's order; -1, where it is not known, counts as a label. Of each at least one
    image stays.
    """
    rng, found = np.random.default_rng(SEED), [np.zeros(0, np.int64)]
    for each in np.unique(label):
        own = np.flatnonzero(label == each)
        count = min(round(share * len(own)), len(own) - 1)
        start = rng.integers(len(own) - count + 1)
        found.append(own[start : start + count])
    return np.sort(np.concatenate(found))


def learnt_from(label: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Positions int64 of all others."""
    return np.setdiff1d(np.arange(len(label)), held_out(label, share))
