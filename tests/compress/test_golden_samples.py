"""Golden samples must be told apart easily by an engine that is right, and the worst case must be hard on int8."""

from __future__ import annotations

import numpy as np

from compress.golden_samples import farthest, gaps


def unit(degrees: list[float]) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_each_sample_is_the_farthest_from_those_before() -> None:
    rows = unit([0, 5, 180, 95, 88, 269])
    assert farthest(rows, 4, 1) == [0, 2, 5, 4]
    assert farthest(rows, 3, 2) == [0, 1, 2], "the first ones are kept, however near they are"


def test_there_are_never_more_samples_than_rows() -> None:
    assert farthest(unit([0, 90]), 8, 1) == [0, 1]


def test_gaps_are_leads_in_probability() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 1e-9]]))
    np.testing.assert_allclose(gaps(logits), [0.5, 0.0], atol=1e-6)
