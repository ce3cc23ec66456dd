"""Augmentation is repeatable, and view 0 is the frame itself."""

from typing import Any

import numpy as np
import pytest

from compress.augment import Augment, augment_batch
from runtimes import RecipeError

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def test_the_same_numbers_give_the_same_pixels() -> None:
    some, again = (augment_batch(FRAMES, np.array([2, 0]), Augment(), 32, 5, 1) for _ in range(2))
    assert some.shape == (2, 32, 32, 3)
    assert some.dtype == np.uint8
    assert np.array_equal(some, again)
    # A draw is of the frame alone: neither its place nor its neighbours matter.
    assert np.array_equal(some[1], augment_batch(FRAMES[:1], np.array([0]), Augment(), 32, 5, 1)[0])


def test_each_frame_has_a_draw_of_its_own() -> None:
    """Of columns that differ in brightness only, other parts are cut."""
    column = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    lefts = {int((Augment(**PLAIN, crop=0.3)(column + add, 64, 1, 1) - add)[0, 0, 0]) for add in range(20)}
    assert len(lefts) > 5


@pytest.mark.parametrize(("seed", "view"), [(6, 1), (5, 2)])
def test_other_numbers_give_other_pixels(seed: int, view: int) -> None:
    assert not np.array_equal(Augment()(FRAMES[0], 32, 5, 1), Augment()(FRAMES[0], 32, seed, view))


def test_view_zero_is_plain() -> None:
    assert np.array_equal(Augment()(FRAMES[0], 32, 5, 0), FRAMES[0])


def test_everything_off_changes_nothing() -> None:
    off = Augment(flip=False, rotate=False, shift=0, scale=0, brightness=0)
    assert np.array_equal(off(FRAMES[0], 32, 5, 3), FRAMES[0])


def test_a_plain_colour_stays_that_colour_but_for_brightness() -> None:
    frame = np.full((32, 32, 3), (0, 128, 128), np.uint8)
    for view in range(1, 21):
        changed = Augment(brightness=0.04)(frame, 32, 0, view).astype(int)
        assert changed[..., 0].max() == 0
        assert abs(changed - frame).max() <= 6


def test_nonsense_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"shift must lie in 0\.\.1"):
        Augment(shift=1.5)
    with pytest.raises(RecipeError, match=r"crop must lie in 0\.05\.\.1 \(a share of the area\), got 0\.0"):
        Augment(crop=0.0)
    with pytest.raises(RecipeError, match=r"source must lie in 1\.\.4, in edges of what the teacher sees, got 256"):
        Augment(source=256)


PLAIN: dict[str, Any] = {"flip": False, "rotate": False, "shift": 0.0, "scale": 0.0, "brightness": 0.0}


def test_a_crop_is_a_part_of_the_frame_whatever_size_is_wanted() -> None:
    column = np.repeat(np.arange(96, dtype=np.uint8)[None, :, None], 96, 0).repeat(3, 2)
    crop = Augment(**PLAIN, crop=0.3, source=3)
    widths = []
    for view in range(1, 31):
        small, large = (crop(column, size, 1, view).astype(int) for size in (32, 64))
        assert small.shape == (32, 32, 3)
        assert large.shape == (64, 64, 3)
        # What is cut does not depend on the size: both see the same columns, within a pixel.
        assert abs(small[0, 0, 0] - large[0, 0, 0]) <= 2
        assert abs(small[0, -1, 0] - large[0, -1, 0]) <= 2
        widths.append(large[0, -1, 0] - large[0, 0, 0])
    assert min(widths) < 65
    assert max(widths) > 80


def test_tones_keep_grey_grey_and_no_saturation_is_grey() -> None:
    grey = np.full((16, 16, 3), 100, np.uint8)
    toned = Augment(**{**PLAIN, "brightness": 0.3}, contrast=0.3, saturation=0.3)
    for view in range(1, 11):
        changed = toned(grey, 16, 0, view)
        assert (changed == changed[0, 0, 0]).all()
        assert 70 <= changed[0, 0, 0] <= 130
    colour = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    spreads = [np.ptp(Augment(**PLAIN, saturation=0.5)(colour, 16, 0, view)[0, 0].astype(int)) for view in range(1, 31)]
    assert min(spreads) < 100
    assert max(spreads) > 200


def test_a_tint_moves_each_colour_by_itself() -> None:
    white = np.full((16, 16, 3), 200, np.uint8)
    tinted = np.array([Augment(**PLAIN, tint=0.1)(white, 16, 0, view)[0, 0] for view in range(1, 41)]).astype(int)
    assert tinted.min() < 185
    assert tinted.max() > 215
    assert abs(tinted - 200).max() <= 20
    assert np.ptp(tinted, axis=1).max() > 20
