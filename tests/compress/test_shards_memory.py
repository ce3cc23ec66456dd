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
BAR = 16.0  # MB (1e6 bytes) that ten times the samples may add: two thirds of what their bytes are, and noise
BAR_LOADED = 4000  # bytes for each photo of a loaded corpus: its path, line, sha256 and label, while it is read

# The peak of this process alone (VmHWM): ru_maxrss would begin with the parent's.
CODE = """
import sys
from pathlib import Path
from compress.data import open_dataset
def peak():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
dataset = open_dataset("shards", {"root": sys.argv[1], "cache": sys.argv[2]})
unpacked = dataset._file
before = peak()
loaded = dataset.load() if sys.argv[3] == "load" else None
print(before, peak(), len(loaded.train.images) if loaded else 0)
"""


def write_shards(folder: Path, count: int) -> str:
    """`count` samples of 64 photos, 32 pixels wide, again and again; returns what data.root is."""
    folder.mkdir()
    photos = [jpeg(at) for at in range(64)]
    for number in range(count // EACH):
        with tarfile.open(folder / f"shop-{number:03d}.tar", "w") as tar:
            for at in range(EACH):
                split = "test" if at % 10 == 0 else "val" if at % 10 == 1 else "train"
                about = f'{{"label": "{LABELS[at % 3]}", "split": "{split}"}}'.encode()
                for suffix, data in (("jpg", photos[at % 64]), ("json", about)):
                    info = tarfile.TarInfo(f"{at:06d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                tar.members = []  # type: ignore[attr-defined]
    return str(folder / "*.tar")


def peaks(root: str, cache: Path, then: str = "stop") -> tuple[int, int, int]:
    """Bytes at the peak of unpacking and of all, and how many photos are for training."""
    command = [sys.executable, "-c", CODE, root, str(cache), then]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    before, after, train = map(int, done.stdout.split())
    return before, after, train


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_while_a_hundred_thousand_samples_are_unpacked(tmp_path: Path) -> None:
    few, many = write_shards(tmp_path / "few", FEW), write_shards(tmp_path / "many", MANY)
    unpacking = [peaks(root, tmp_path / "cache")[0] / 1e6 for root in (few, many)]
    print(f"peak while unpacking {FEW} and {MANY} samples: {unpacking[0]:.1f} and {unpacking[1]:.1f} MB")
    # In processes that find everything unpacked, so that what the corpus takes is not hidden below another peak.
    loading = [peaks(root, tmp_path / "cache", "load") for root in (few, many)]
    assert [train for _, _, train in loading] == [FEW * 8 // 10, MANY * 8 // 10]
    each = (loading[1][1] - loading[0][1]) / (MANY - FEW)
    print(f"peak with the corpus: {loading[0][1] / 1e6:.1f} and {loading[1][1] / 1e6:.1f} MB, {each:.0f} bytes a photo")
    assert unpacking[1] - unpacking[0] < BAR, unpacking
    assert each < BAR_LOADED, loading
