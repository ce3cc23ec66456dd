"""Memory while shards are unpacked, for 10,000 and 100,000 samples, each in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.photos import ROOT
from tests.streams import LABELS, jpeg

FEW, MANY = 10_000, 100_000
EACH = 10_000  # samples in a shard
BAR = 16.0  # MB (1e6 bytes) that ten times the samples may add while they are unpacked; their bytes are 100 MB more
# Bytes for each photo that is looked at and loaded: its path, its line, its sha256 twice, its hash, its label.
BAR_LOADED = 6000

# The peak of this process alone (ru_maxrss would begin with the parent's), from when everything is imported.
CODE = """
import sys
from pathlib import Path
import webdataset.tariterators, rich.progress
import compress.data.shards, compress.progress
from compress.data import open_dataset
def peak():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
dataset = open_dataset("shards", {"root": sys.argv[1], "cache": sys.argv[2], "accept": ["duplicates"]})
Path("/proc/self/clear_refs").write_text("5")
before = peak()
unpacked = dataset._file
after = peak()
if sys.argv[3] == "load":
    dataset.verify(Path(sys.argv[2]) / "out")
    loaded = dataset.load()
print(before, after, peak(), len(loaded.train.images) if sys.argv[3] == "load" else 0)
"""


def write_shards(folder: Path, count: int) -> str:
    """`count` photos, 32 pixels wide; returns what data.root is."""
    folder.mkdir()
    for number in range(count // EACH):
        with tarfile.open(folder / f"shop-{number:03d}.tar", "w") as tar:
            for at in range(EACH):
                split = "test" if at % 10 == 0 else "val" if at % 10 == 1 else "train"
                about = f'{{"label": "{LABELS[at % 3]}", "split": "{split}"}}'.encode()
                for suffix, data in (("jpg", jpeg(number * EACH + at)), ("json", about)):
                    info = tarfile.TarInfo(f"{at:06d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                tar.members = []  # type: ignore[attr-defined]
    return str(folder / "*.tar")


def peaks(root: str, cache: Path, then: str = "stop") -> tuple[int, ...]:
    """Bytes: before anything is read, at the peak of unpacking, and of all; and how many photos are for training."""
    command = [sys.executable, "-c", CODE, root, str(cache), then]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return tuple(map(int, done.stdout.split()))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_while_a_hundred_thousand_samples_are_unpacked(tmp_path: Path) -> None:
    few, many = write_shards(tmp_path / "few", FEW), write_shards(tmp_path / "many", MANY)
    unpacking = [peaks(root, tmp_path / "cache") for root in (few, many)]
    added = [(peak - before) / 1e6 for before, peak, *_ in unpacking]
    print(f"\nunpacking {FEW} and {MANY} samples takes {added[0]:.1f} and {added[1]:.1f} MB over what is imported")
    # In processes that find everything unpacked, so that what the corpus takes is not hidden below another peak.
    loading = [peaks(root, tmp_path / "cache", "load") for root in (few, many)]
    assert [train for *_, train in loading] == [FEW * 8 // 10, MANY * 8 // 10]
    each = (loading[1][2] - loading[0][2]) / (MANY - FEW)
    print(
        f"looking at the photos and loading them: {each:.0f} bytes a photo, {loading[1][2] / 1e6:.1f} MB with imports"
    )
    assert added[1] - added[0] < BAR, unpacking
    assert each < BAR_LOADED, loading
