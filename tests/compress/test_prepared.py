"""Images at a tower's size: those of the SDK's own resize, and no half of a file in the cache."""

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest

from compress import prepared as module
from compress.prepared import CACHE, drop_unfinished, prepared
from sdk.frames import prepare, read_frame


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for path in paths:
        assert cv2.imwrite(str(path), rng.integers(0, 256, (40, 50, 3), np.uint8))
    return paths


def test_they_are_what_the_device_will_see(images: list[Path], tmp_path: Path) -> None:
    frames = prepared(images, 32, tmp_path, "read")
    assert isinstance(frames, np.memmap)
    assert (frames.shape, frames.dtype) == ((3, 32, 32, 3), np.uint8)
    for frame, path in zip(frames, images, strict=True):
        assert np.array_equal(frame, prepare(read_frame(path), 32, resize="area", crop="none"))


def test_a_full_disk_is_an_error_and_leaves_nothing_that_looks_whole(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "prepare", full)
        with pytest.raises(OSError, match="No space left"):
            prepared(images, 32, tmp_path, "read")
    assert not list((tmp_path / CACHE).iterdir())
    assert len(prepared(images, 32, tmp_path, "read")) == 3


def test_two_processes_may_write_the_same_and_what_killed_ones_left_goes(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: object, **more: object) -> object:
        monkeypatch.setattr(module, "prepare", prepare)
        assert len(prepared(images, 32, tmp_path, "read")) == 3  # another one, from beginning to end
        return prepare(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "prepare", meanwhile)
    assert len(prepared(images, 32, tmp_path, "read")) == 3
    (whole,) = (tmp_path / CACHE).iterdir()
    (tmp_path / CACHE / f"{whole.stem}-0a1b2c3d.tmp.npy").write_bytes(b"half")
    drop_unfinished(tmp_path)
    assert list((tmp_path / CACHE).iterdir()) == [whole]
