"""Writing a bundle: whole or not at all."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from runtimes import BundleError
from sdk import Bundle, open_bundle
from sdk.manifest import Figure
from sdk.writer import Source, manifest_bytes, npy_bytes, npz_bytes, write_bundle


@pytest.fixture
def bundle(colours: Path) -> Bundle:
    return open_bundle(colours)


def sources_of(bundle: Bundle) -> dict[str, Source]:
    return {name: bundle.file(name) for name in bundle.manifest.files}


def everything_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_writes_what_it_read(bundle: Bundle, tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "deep" / "out", bundle.manifest, sources_of(bundle))
    assert made.path == tmp_path / "deep" / "out"
    assert everything_in(made.path) == everything_in(bundle.path)
    assert made.hash == bundle.hash
    assert [path.name for path in made.path.parent.iterdir()] == ["out"]
    assert made.path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_no_bundle_is_left_alone(bundle: Bundle, tmp_path: Path, replace: bool) -> None:
    """A user's photos, a file: never removed, whatever is asked."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"dear")
    (tmp_path / "file").write_bytes(b"dear")
    message = "exists and is not a bundle; it is left alone" if replace else "exists; remove it or choose another"
    for name in ("photos", "file"):
        with pytest.raises(BundleError, match=re.escape(f"{tmp_path / name} {message}")):
            write_bundle(tmp_path / name, bundle.manifest, sources_of(bundle), replace=replace)
    assert everything_in(tmp_path) == {"photos/a.jpg": b"dear", "file": b"dear"}


def test_an_old_bundle_goes_only_when_told_and_once_the_new_one_is_whole(bundle: Bundle, tmp_path: Path) -> None:
    out, sources = tmp_path / "out", sources_of(bundle)
    old = write_bundle(out, bundle.manifest, sources)
    renamed = dataclasses.replace(bundle.manifest, name="newer")
    with pytest.raises(BundleError, match="exists; remove it or choose another folder"):
        write_bundle(out, renamed, sources)
    with pytest.raises(BundleError, match=r"'image\.fp32\.onnx' is not a readable ONNX file"):
        write_bundle(out, renamed, sources | {"image.fp32.onnx": b"garbage"}, replace=True)
    assert open_bundle(out).hash == old.hash
    (out / "left over").write_bytes(b"")
    assert write_bundle(out, renamed, sources, replace=True).manifest.name == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (out / "left over").exists()


def test_a_source_that_vanishes_leaves_nothing_behind(bundle: Bundle, tmp_path: Path) -> None:
    sources = sources_of(bundle) | {"tokenizer.json": tmp_path / "nowhere.json"}
    with pytest.raises(BundleError, match=r"could not be written: .*nowhere\.json.*; no half bundle was left behind"):
        write_bundle(tmp_path / "a" / "out", bundle.manifest, sources)
    assert not list(tmp_path.iterdir())


def test_a_source_that_vanishes_midway_leaves_nothing_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there when the space is counted, and gone when its turn comes."""
    late = tmp_path / "late.json"
    shutil.copyfile(bundle.file("tokenizer.json"), late)
    copy, copied = shutil.copyfile, []

    def copyfile(source: Path, to: Path) -> None:
        copied.append(to.name)
        late.unlink(missing_ok=True)
        copy(source, to)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(BundleError, match=r"could not be written: .*late\.json"):
        write_bundle(tmp_path / "out", bundle.manifest, sources_of(bundle) | {"tokenizer.json": late})
    assert len(copied) > 1
    assert not list(tmp_path.iterdir())


def test_what_the_reader_would_refuse_is_never_there(bundle: Bundle, tmp_path: Path) -> None:
    for change, message in (
        ({"dim": 4}, "graphs.image.fp32 must take"),
        ({"golden": "other.npz"}, "uses the file 'other.npz'"),
        ({"format": 2}, "has format 2"),
    ):
        with pytest.raises(BundleError, match=re.escape(message)):
            write_bundle(tmp_path / "out", dataclasses.replace(bundle.manifest, **change), sources_of(bundle))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "bundle.json"])
def test_a_name_that_climbs_out_is_never_written(bundle: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=re.escape(f"lists the file name {name!r}")):
        write_bundle(tmp_path / "out", bundle.manifest, sources_of(bundle) | {name: b""})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_seen_before_anything_is_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(BundleError, match=r"out needs 0\.\d MB and 0\.0 MB are free; make room or choose another"):
        write_bundle(tmp_path / "a" / "out", bundle.manifest, sources_of(bundle) | {"more.bin": bytes(100_000)})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"dear")
    with pytest.raises(BundleError, match=r"file/out could not be written: "):
        write_bundle(tmp_path / "file" / "out", bundle.manifest, sources_of(bundle))
    assert everything_in(tmp_path) == {"file": b"dear"}


def test_the_old_bundle_comes_back_when_the_swap_fails(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where another program may hold the folder."""
    out = tmp_path / "out"
    old = write_bundle(out, bundle.manifest, sources_of(bundle))
    rename = Path.rename

    def held(self: Path, to: Path) -> Path:
        if self.name.startswith(".out-") and not self.name.endswith("-old"):
            raise PermissionError("the folder is in use")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", held)
    with pytest.raises(BundleError, match="could not be written: the folder is in use"):
        write_bundle(out, bundle.manifest, sources_of(bundle), replace=True)
    assert open_bundle(out).hash == old.hash
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_manifest_that_is_no_json(bundle: Bundle) -> None:
    broken = dataclasses.replace(bundle.manifest, quality={"top1": {"student": Figure(float("nan"), 0.0, 1.0, 1)}})
    with pytest.raises(BundleError, match="'colours' cannot be written as JSON: Out of range float values"):
        manifest_bytes(broken)
    with pytest.raises(BundleError, match="cannot be written as JSON: Object of type bytes"):
        manifest_bytes(dataclasses.replace(bundle.manifest, extra={"a": b""}))


def test_arrays_become_the_same_bytes_each_time() -> None:
    arrays = {"b/1": np.arange(6, dtype=np.uint8).reshape(2, 3), "a": np.array(["é", "red"])}
    data = npz_bytes(arrays)
    assert data == npz_bytes(dict(reversed(arrays.items())))
    with np.load(io.BytesIO(data), allow_pickle=False) as read:
        assert read.files == ["a", "b/1"]
        np.testing.assert_array_equal(read["b/1"], arrays["b/1"])
        np.testing.assert_array_equal(read["a"], arrays["a"])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    np.testing.assert_array_equal(np.load(io.BytesIO(npy_bytes(arrays["b/1"]))), arrays["b/1"])


def test_objects_are_never_pickled() -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        npz_bytes({"a": np.array([None], object)})
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        npy_bytes(np.array([None], object))
