"""Train images that no student learns from: what a study measures on besides validation, where that is small.

`prune.hold_out` says what share of them, and the draft carries it on: whatever chooses train images for a student asks
here. The teacher has learnt from them.
"""

import numpy as np
from numpy.typing import NDArray

SEED = 2  # one for all students, so that all are measured on the same images


def held_out(label: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Positions int64 of the train images that are left out, `share` (from 0 to below 1) of each label's.

    `label`: int64 (N,); -1, where it is not known, is drawn from like a label. Of each at least one image stays.
    """
    rng, found = np.random.default_rng(SEED), [np.zeros(0, np.int64)]
    for each in np.unique(label):
        own = rng.permutation(np.flatnonzero(label == each))
        found.append(own[: min(round(share * len(own)), len(own) - 1)])
    return np.sort(np.concatenate(found))


def learnt_from(label: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Positions int64 of all others."""
    return np.setdiff1d(np.arange(len(label)), held_out(label, share))
