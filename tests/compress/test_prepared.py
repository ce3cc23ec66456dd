"""Images at a tower's size: those of the SDK's own resize, and no half of a file in the cache."""

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest

from compress import prepared as module
from compress.prepared import CACHE, drop_others, drop_unfinished, prepared
from runtimes import RecipeError
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


@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_file_is_named_and_never_used(cut: bool, images: list[Path], tmp_path: Path) -> None:
    prepared(images, 32, tmp_path, "read")
    (file,) = (tmp_path / CACHE).glob("*.npy")
    data = file.read_bytes()
    file.write_bytes(data[:-100] if cut else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        RecipeError, match=rf"{file} is damaged: it is not what was read from the images; remove it and"
    ):
        prepared(images, 32, tmp_path, "read")
    file.unlink()
    assert len(prepared(images, 32, tmp_path, "read")) == 3
    file.with_suffix(".sha256").unlink()
    with pytest.raises(RecipeError, match=rf"{file} is damaged"):
        prepared(images, 32, tmp_path, "read")


def test_what_is_not_kept_goes(images: list[Path], tmp_path: Path) -> None:
    drop_others(tmp_path, [])
    small, large = (prepared(images, size, tmp_path, "read") for size in (16, 32))
    (tmp_path / CACHE / "killed.tmp.npy").write_bytes(b"x")
    drop_others(tmp_path, [large, large])
    assert len(list((tmp_path / CACHE).glob("*.npy"))) == len(list((tmp_path / CACHE).glob("*.sha256"))) == 1
    assert np.array_equal(prepared(images, 32, tmp_path, "read"), large)
    assert small.shape == (3, 16, 16, 3), "whoever has it open still reads it"


def test_two_processes_may_write_the_same_and_what_killed_ones_left_goes(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: object, **more: object) -> object:
        monkeypatch.setattr(module, "prepare", prepare)
        assert len(prepared(images, 32, tmp_path, "read")) == 3  # another one, from beginning to end
        return prepare(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "prepare", meanwhile)
    assert len(prepared(images, 32, tmp_path, "read")) == 3
    (whole,) = (tmp_path / CACHE).glob("*.npy")
    (tmp_path / CACHE / f"{whole.stem}-0a1b2c3d.tmp.npy").write_bytes(b"half")
    drop_unfinished(tmp_path)
    assert list((tmp_path / CACHE).glob("*.npy")) == [whole]
