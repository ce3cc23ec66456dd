"""A teacher and its students see the same views, made of the teacher's frames; view 0 is what the device sees."""

from pathlib import Path

import numpy as np
import pytest

from compress.augment import Augment, augment_batch
from compress.draft import ImageSpec
from compress.prepared import prepared, read_prepared
from compress.recipe import load_recipe
from compress.steps.embed import Embed
from compress.views import views
from tests.photos import picture, save

SIZE, SOURCE = 32, 1.25


def spec(resize: str, crop: str, size: int = SIZE) -> ImageSpec:
    return ImageSpec("vit", {}, Path("w"), 5, size, (0.5,) * 3, (0.5,) * 3, resize, crop)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Wide ones, of which a crop leaves away the sides."""
    return [save(tmp_path / f"{n}.jpg", np.ascontiguousarray(picture(n, 90)[:60])) for n in range(3)]


@pytest.mark.parametrize("source", [1, SOURCE])
@pytest.mark.parametrize("how", [("pil-bicubic", "center-after"), ("pil-bilinear", "none"), ("area", "center")])
def test_a_model_with_a_resize_of_its_own_sees_that(
    how: tuple[str, str], source: float, images: list[Path], tmp_path: Path
) -> None:
    augment = Augment(source=source, crop=0.5)
    seen = views(images, (spec(*how), spec(*how)), (augment, 28, 3), tmp_path, "read")
    rows = np.array([2, 0])
    plain = seen(rows, 0)
    assert np.array_equal(plain, [read_prepared(images[at], SIZE, *how) for at in rows])
    whole = np.stack([read_prepared(path, augment.edge(SIZE), *how) for path in images])
    assert np.array_equal(seen(rows, 2), augment_batch(whole, rows, augment, 28, 3, 2))
    assert seen(rows, 2).shape == (2, 28, 28, 3)


@pytest.mark.parametrize("source", [1, SOURCE])
def test_one_of_ours_sees_what_it_always_saw(source: float, images: list[Path], tmp_path: Path) -> None:
    augment, ours = Augment(source=source), spec("area", "none")
    seen = views(images, (ours, ours), (augment, 0, 3), tmp_path, "read")
    assert seen.plain is seen.frames
    frames = prepared(images, augment.edge(SIZE), tmp_path, "read")
    for view in (0, 1):
        assert np.array_equal(seen(np.arange(3), view), augment_batch(frames, np.arange(3), augment, SIZE, 3, view))


@pytest.mark.parametrize("size", [SIZE, 24])
def test_a_student_sees_its_teachers_views_and_the_devices_plain_one(
    size: int, images: list[Path], tmp_path: Path
) -> None:
    teacher, student = spec("pil-bicubic", "center-after"), spec("area", "center", size)
    how, rows = (Augment(source=SOURCE, crop=0.5), 0, 3), np.arange(3)
    wanted = views(images, (teacher, teacher), how, tmp_path, "read")
    seen = views(images, (teacher, student), how, tmp_path, "read")
    assert np.array_equal(seen(rows, 0), [read_prepared(path, size, "area", "center") for path in images])
    assert np.array_equal(seen.frames, wanted.frames), "whatever the student's own resize"
    if size == SIZE:
        assert np.array_equal(seen(rows, 1), wanted(rows, 1))


@pytest.mark.parametrize("size", [224, 260, 384])
def test_frames_that_are_cut_are_never_smaller_than_what_is_seen(size: int) -> None:
    """Whatever checkpoint the recipe is given: views of it would be blurred."""
    augments = [step.augment for step in load_recipe("small").steps if isinstance(step, Embed)]
    assert [augment.edge(size) > size for augment in augments] == [True]


def test_a_student_of_another_size_than_ours_sees_plain_what_the_device_will(
    images: list[Path], tmp_path: Path
) -> None:
    seen = views(images, (spec("area", "none"), spec("area", "none", 24)), (Augment(), 0, 3), tmp_path, "read")
    assert seen.frames.shape[1] == SIZE
    assert np.array_equal(seen.plain, [read_prepared(path, 24) for path in images])
