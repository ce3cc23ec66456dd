"""Writing a bundle: whole or not at all."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from runtimes import Array, BundleError
from sdk.bundle import MANIFEST, Bundle, check_name, open_bundle, sha256_of
from sdk.manifest import FileEntry, Manifest

Source = Path | bytes


def write_bundle(out: Path, manifest: Manifest, sources: Mapping[str, Source], *, replace: bool = False) -> Bundle:
    """Write a bundle to the folder `out` from files and bytes by name; `manifest.files` is filled in here.

    The bundle is built beside `out`, flushed, read back through the reader and only then renamed, so `out` never holds
    half a bundle. `replace` lets an existing bundle go once the new one is whole.

    Raises BundleError when `out` exists (without `replace`, or when it is no bundle), when the disk is full, and for
    whatever the reader would refuse.
    """
    _check_out(out, replace)
    for name in sources:
        check_name(name, out)
    with _folder_beside(out, sources) as folder:
        entries = {}
        for name, source in sorted(sources.items()):
            path = folder / name
            if isinstance(source, bytes):
                path.write_bytes(source)
            else:
                shutil.copyfile(source, path)
            _flush(path)
            entries[name] = FileEntry(sha256_of(path), path.stat().st_size)
        (folder / MANIFEST).write_bytes(manifest_bytes(dataclasses.replace(manifest, files=entries)))
        _flush(folder / MANIFEST)
        open_bundle(folder)
        _publish(folder, out)
    return open_bundle(out)


def manifest_bytes(manifest: Manifest) -> bytes:
    """bundle.json as it is on disk: sorted keys, one space of indent, UTF-8, a final newline. Raises BundleError."""
    table = dataclasses.asdict(manifest)
    try:
        text = json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{manifest.name!r} cannot be written as JSON: {error}; mend its manifest") from error
    return f"{text}\n".encode()


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """A compressed .npz of plain arrays, the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(sorted(arrays.items())))
    return buffer.getvalue()


def npy_bytes(array: Array) -> bytes:
    """One plain array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _check_out(out: Path, replace: bool) -> None:
    if not out.exists():
        return
    if not replace:
        raise BundleError(f"{out} exists; remove it or choose another folder")
    if not (out / MANIFEST).is_file():
        raise BundleError(f"{out} exists and is not a bundle; it is left alone: choose another folder")


@contextmanager
def _folder_beside(out: Path, sources: Mapping[str, Source]) -> Iterator[Path]:
    folder = None
    try:
        _check_space(out, sum(len(s) if isinstance(s, bytes) else s.stat().st_size for s in sources.values()))
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        folder.chmod(0o755)
        yield folder
    except OSError as error:
        raise BundleError(f"{out} could not be written: {error}; no half bundle was left behind") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _check_space(out: Path, need: int) -> None:
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if need > free:
        raise BundleError(
            f"{out} needs {need / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; make room or choose another folder"
        )


def _publish(folder: Path, out: Path) -> None:
    """Rename into place; an old bundle is moved aside first, because a rename does not replace a full folder."""
    if not out.exists():
        folder.rename(out)
        return
    aside = folder.with_name(folder.name + "-old")
    out.rename(aside)
    try:
        folder.rename(out)
    except OSError:
        aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
