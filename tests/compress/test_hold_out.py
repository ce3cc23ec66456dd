from __future__ import annotations

import numpy as np
import pytest

from compress.hold_out import held_out, learnt_from

LABEL = np.arange(72) % 3 - 1  # a third of them is not known


def test_of_each_label_one_stretch_is_left_out_the_same_for_all() -> None:
    """Neighbours often show one scene: a photo of it in training would tell too much."""
    found = held_out(LABEL, 0.25)
    starts = set()
    for label in (-1, 0, 1):
        places = np.flatnonzero(np.isin(np.flatnonzero(label == LABEL), found))
        assert len(places) == 6 and np.ptp(places) == 5
        starts.add(int(places[0]))
    assert len(starts) > 1, "it starts anywhere"
    assert np.array_equal(found, held_out(LABEL, 0.25))


@pytest.mark.parametrize(("share", "left"), [(0.0, 72), (0.5, 36), (0.99, 3)])
def test_the_rest_is_learnt_from_and_one_of_each_stays(share: float, left: int) -> None:
    assert len(learnt_from(LABEL, share)) == left
    assert sorted([*learnt_from(LABEL, share), *held_out(LABEL, share)]) == list(range(72))
    assert len(held_out(np.zeros(0, np.int64), share)) == 0
