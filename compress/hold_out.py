"""Train images that no student learns from: what a study measures on besides validation, where that is small."""

import numpy as np
from numpy.typing import NDArray


def held_out(label: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """bool (N,): the train images that are left out, `share` (from 0 to below 1) of each label's, drawn by `seed`.

    `label`: int64 (N,); -1, where it is not known, is drawn from like a label. Of each at least one image stays.
    """
    found, rng = np.zeros(len(label), bool), np.random.default_rng((seed, 2))
    for each in np.unique(label):
        own = rng.permutation(np.flatnonzero(label == each))
        found[own[: min(round(share * len(own)), len(own) - 1)]] = True
    return found
