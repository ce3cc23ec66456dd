"""What is wrong with photographs, told all at once; and whether two files show the same picture."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from compress import photo_scan
from compress.layouts import read_listing
from compress.perceptual_hash import NEAR, near_pairs, perceptual_hash
from compress.photo_checks import LIST, problems, refuse
from compress.photo_scan import SCAN, scan
from compress.photo_splits import folded, near_groups
from runtimes import RecipeError
from sdk.frames import Frame, read_frame
from tests.photos import folder_shop, grocery_root, grocery_shop, picture, save


def apart(left: Frame, right: Frame) -> int:
    return (perceptual_hash(left) ^ perceptual_hash(right)).bit_count()


def found_in(root: Path) -> dict[str, list[str]]:
    listing = read_listing(str(root))
    return problems(listing, listing, scan(listing.images))


def test_a_good_shop_has_no_problems(tmp_path: Path) -> None:
    assert found_in(grocery_shop(tmp_path)) == {}


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    counts = {"train/a": 6, "train/b": 4, "train/c": 5, "train/none": 0, "val/a": 2, "test/b": 2}
    shop = folder_shop(tmp_path, counts)
    (shop / "train/c/002.jpg").write_bytes(b"no picture")
    whole = (shop / "train/a/005.jpg").read_bytes()
    (shop / "train/a/005.jpg").write_bytes(whole[: len(whole) // 2])
    (shop / "val/a/000.jpg").write_bytes((shop / "train/a/000.jpg").read_bytes())
    save(shop / "test/b/001.jpg", cv2.resize(read_frame(shop / "train/a/001.jpg"), (96, 96)), quality=40)
    save(shop / "test/b/000.jpg", read_frame(shop / "val/a/001.jpg"), quality=95)
    found = found_in(shop)
    assert list(found) == ["unreadable", "few", "duplicates", "empty"]
    assert [line.partition(":")[0] for line in found["unreadable"]] == ["train/a/005.jpg", "train/c/002.jpg"]
    assert "got one cut after" in found["unreadable"][0]
    assert found["few"] == ["'b' has 4", "'c' has 4"], "an unreadable photo is none"
    assert found["duplicates"][0] == "train/a/000.jpg (train) and val/a/000.jpg (val): the same bytes"
    assert [line.partition(":")[0] for line in found["duplicates"][1:]] == [
        "train/a/001.jpg (train) and test/b/001.jpg (test)",
        "val/a/001.jpg (val) and test/b/000.jpg (test)",
    ]
    assert all(line.endswith("of 64 bits apart") for line in found["duplicates"][1:])
    assert found["empty"] == ["'none'"]


def test_a_file_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    shop = grocery_shop(tmp_path)
    (shop / "val/Fruit/Royal-Gala/Royal-Gala_000.jpg").unlink()
    (line,) = found_in(shop)["unreadable"]
    assert line.startswith("val/Fruit/Royal-Gala/Royal-Gala_000.jpg: wanted an image file, got a path that does not ex")


FOUND = {"few": ["'b' has 4", "'c' has 4", "'d' has 1", "'e' has 0"], "empty": ["'none'"]}


def test_one_line_with_counts_examples_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        refuse(FOUND, (), tmp_path / "out")
    file = tmp_path / "out" / LIST
    assert str(refused.value) == (
        "the photos cannot be trained on as they are: classes with fewer than 5 photos to train on: 4 ('b' has 4, "
        f"'c' has 4, 'd' has 1, ...); labels without photos: 1 ('none'); all are listed in {file}. Mend them, or "
        'accept them as they are with --set \'data.accept=["few", "empty"]\''
    )
    assert file.read_text(encoding="utf-8") == (
        "# classes with fewer than 5 photos to train on: 4\n'b' has 4\n'c' has 4\n'd' has 1\n'e' has 0\n\n"
        "# labels without photos: 1\n'none'\n"
    )


def test_what_to_do_with_photos_that_show_the_same(tmp_path: Path) -> None:
    found = {"duplicates": ["a.jpg (train) and b.jpg (val): the same bytes"]}
    said = r"Mend them \(of photos that show the same leave one, or put them into one split\), or accept them"
    with pytest.raises(RecipeError, match=said):
        refuse(found, (), tmp_path)
    with pytest.raises(RecipeError, match="Mend them, or accept them"):
        refuse({**found, **FOUND}, ("duplicates",), tmp_path)


def test_what_is_accepted_is_logged_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        refuse(FOUND, ("few", "empty", "duplicates"), tmp_path)
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "accepted: classes with fewer than 5 photos to train on: 4",
        "accepted: labels without photos: 1",
    ]
    with pytest.raises(RecipeError, match=r"as they are: labels without photos: 1 .*accept=\[\"few\", \"empty\"\]"):
        refuse(FOUND, ("few",), tmp_path)
    assert (tmp_path / LIST).exists()
    refuse({}, (), tmp_path)
    assert not (tmp_path / LIST).exists(), "of a run before"


def test_a_photo_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever split or place it has; what was found is kept in the run's folder, by content."""
    shop = folder_shop(tmp_path / "shop", {"a": 2, "b": 1}, first=int(time.time()))
    (shop / "a" / "001.jpg").write_bytes(b"no picture" + os.urandom(8))
    images = read_listing(str(shop)).images
    looked: list[Path] = []

    def counted(source: Path) -> Frame:
        looked.append(source)
        return read_frame(source)

    monkeypatch.setattr(photo_scan, "read_frame", counted)
    first = scan(images, tmp_path)
    assert list(first.unreadable) == [1]
    assert first.hashes[1] == 0
    assert first.hashes[0] == perceptual_hash(read_frame(images[0]))
    turned = scan(images[::-1])
    assert np.array_equal(turned.hashes, first.hashes[::-1])
    assert len(looked) == 3, "once per process"

    stored = (tmp_path / SCAN).read_text(encoding="utf-8")
    monkeypatch.setattr(photo_scan, "_known", {})
    again = scan(images, tmp_path)
    assert again.unreadable == first.unreadable
    assert np.array_equal(again.hashes, first.hashes)
    assert (tmp_path / SCAN).read_text(encoding="utf-8") == stored
    assert len(looked) == 3, "once per run"
    added = save(shop / "b" / "more.jpg", picture(7, 60))
    scan((*images, added), tmp_path)
    assert looked[3:] == [added]

    for damaged in ('{"decoder": 3', stored.replace(cv2.__version__, "0.1")):
        monkeypatch.setattr(photo_scan, "_known", {})
        (tmp_path / SCAN).write_text(damaged, encoding="utf-8")
        del looked[:]
        assert scan(images, tmp_path).unreadable == first.unreadable
        assert len(looked) == 3


def test_the_hash_survives_what_files_go_through_and_tells_pictures_apart() -> None:
    frame = picture(1, 96)
    coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    assert apart(frame, np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)) <= NEAR
    assert apart(frame, np.asarray(cv2.resize(frame, (300, 200)), np.uint8)) <= NEAR
    assert apart(frame, (frame * 0.7).astype(np.uint8)) <= NEAR
    assert perceptual_hash(frame).bit_count() == 32
    hashes = np.array([perceptual_hash(picture(seed)) for seed in range(300)], np.uint64)
    assert near_pairs(hashes[:150], hashes[150:]) == []
    assert perceptual_hash(np.full((20, 20, 3), 7, np.uint8)) == 0


def test_near_pairs_by_hand() -> None:
    left = np.array([0, 2**63, 0xFF], np.uint64)
    right = np.array([1, 2**64 - 1, 0xFF], np.uint64)
    assert near_pairs(left, right, most=2) == [(2, 2, 0), (0, 0, 1), (1, 0, 2)]
    many = np.full(1000, 5, np.uint64)
    many[999] = 0
    assert near_pairs(many, np.array([2**64 - 1 - 5, 4], np.uint64), most=0) == []
    assert len(near_pairs(many, np.array([5], np.uint64), most=0)) == 999


@pytest.mark.slow
def test_the_real_photos_have_no_problem(tmp_path: Path) -> None:
    """No photo of the official lists is unreadable or in two splits; the nearest two are far beyond the threshold."""
    listing = read_listing(str(grocery_root()))
    found = scan(listing.images, tmp_path)
    assert problems(listing, listing, found) == {}
    splits = np.array(listing.splits)
    for left, right in (("train", "val"), ("train", "test"), ("val", "test")):
        assert near_pairs(found.hashes[splits == left], found.hashes[splits == right], most=NEAR + 2) == []
    # Inside a split there are such pairs: photos taken a moment apart.
    names = [listing.relative(at) for at in np.flatnonzero(splits == "train").tolist()]
    pairs = {(names[i], names[j]) for i, j, _ in near_pairs(*(found.hashes[splits == "train"],) * 2, most=2) if i < j}
    assert (
        "train/Fruit/Passion-Fruit/Passion-Fruit_016.jpg",
        "train/Fruit/Passion-Fruit/Passion-Fruit_026.jpg",
    ) in pairs
    groups = near_groups(found)
    for part in range(1, 5):
        fold = folded(listing, part, 4, groups)
        assert problems(listing, fold, found) == {}
        moved = [split for split, own in zip(fold.splits, listing.splits, strict=True) if own == "val"]
        assert moved.count("val") == pytest.approx(296 / 4, abs=4)
