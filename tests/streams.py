"""Small WebDataset shards for tests, written with webdataset's own writer or byte by byte."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import webdataset.writer

from tests.photos import picture

LABELS = ("apple", "pear", "plum")


def jpeg(seed: int, side: int = 32) -> bytes:
    """A JPEG of random blobs; another seed is another picture."""
    return bytes(cv2.imencode(".jpg", picture(seed, side))[1].tobytes())


def shard(path: Path, first: int, count: int) -> Path:
    """Samples number `first` and on, labelled in turn, as the library writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.writer.TarWriter(str(path)) as writer:
        for at in range(first, first + count):
            about = {"text": "", "group": "fruit"}
            writer.write({"__key__": f"photo-{at:04d}", "jpg": jpeg(at), "cls": LABELS[at % 3], "json": about})
    return path


def shards(folder: Path, count: int = 4, each: int = 12) -> str:
    """`count` shards of `each` samples; returns what data.root is."""
    for number in range(count):
        shard(folder / f"shop-{number:03d}.tar", number * each, each)
    return str(folder / f"shop-{{000..{count - 1:03d}}}.tar")


def raw_shard(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> Path:
    """A .tar of these members, whatever they are called."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
