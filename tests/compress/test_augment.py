"""Augmentation is repeatable, and view 0 is the frame itself."""

import numpy as np
import pytest

from compress.augment import Augment, augment_batch
from runtimes import RecipeError

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def test_the_same_numbers_give_the_same_pixels() -> None:
    some, again = (augment_batch(FRAMES, np.array([2, 0]), Augment(), 5, 1) for _ in range(2))
    assert some.shape == (2, 32, 32, 3)
    assert some.dtype == np.uint8
    assert np.array_equal(some, again)
    # An image's draw depends on its own index, not on its neighbours in the batch.
    assert np.array_equal(some[1], augment_batch(FRAMES, np.array([0]), Augment(), 5, 1)[0])


@pytest.mark.parametrize(("seed", "view"), [(6, 1), (5, 2)])
def test_other_numbers_give_other_pixels(seed: int, view: int) -> None:
    assert not np.array_equal(Augment()(FRAMES[0], 5, 1, 0), Augment()(FRAMES[0], seed, view, 0))


def test_view_zero_is_plain() -> None:
    assert np.array_equal(Augment()(FRAMES[0], 5, 0, 0), FRAMES[0])


def test_everything_off_changes_nothing() -> None:
    off = Augment(flip=False, rotate=False, shift=0, scale=0, brightness=0)
    assert np.array_equal(off(FRAMES[0], 5, 3, 0), FRAMES[0])


def test_a_plain_colour_stays_that_colour_but_for_brightness() -> None:
    frame = np.full((32, 32, 3), (0, 128, 128), np.uint8)
    for index in range(20):
        changed = Augment(brightness=0.04)(frame, 0, 1, index).astype(int)
        assert changed[..., 0].max() == 0
        assert abs(changed - frame).max() <= 6


def test_nonsense_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"shift must lie in 0\.\.1"):
        Augment(shift=1.5)
