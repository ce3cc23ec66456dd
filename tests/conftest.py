"""What tests in several folders share: one tiny bundle, built once. It is read, never written; copy it to damage it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import build_colour_bundle

if "PYTEST_XDIST_WORKER" in os.environ:  # a thread per worker; two training side by side only get in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_itemcollected(item: pytest.Item) -> None:
    """With several workers a file stays on one, and what reads the short run on the one that made it."""
    item.add_marker(pytest.mark.xdist_group("short_run" if reads_short_run(item) else item.path.name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The short run first: nothing else takes as long, and the other workers have the rest to do meanwhile."""
    items.sort(key=lambda item: not reads_short_run(item))


def reads_short_run(item: pytest.Item) -> bool:
    return "short_run" in getattr(item, "fixturenames", [])


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the colour bundle (tests/bundles.py)."""
    return build_colour_bundle(tmp_path_factory.mktemp("bundle") / "colours").path


ROOT = Path(__file__).parents[1]
# The default recipe with one epoch each and a part of the test split: everything real, accuracy not yet.
SHORT = (
    "data.test_images=250",
    "teach.epochs=1",
    "teach.head_epochs=1",
    "embed.views=2",
    "embed.phrases=400",
    "embed.held_out=50",
    "distill.epochs=1",
    "prune.samples=128",
    "quantize.samples=64",
    'quantize.quantizers=["nncf_ptq"]',
    "gate.max_drop=100",
    "gate.max_map_drop=1",
    "gate.max_answer_drop=100",
    "pack.seconds=0.3",
)


def distill(cwd: Path, *arguments: str, settings: tuple[str, ...] = SHORT) -> subprocess.CompletedProcess[str]:
    """Run `python -m compress.distill` as a user would, from this checkout, in the folder `cwd`."""
    sets = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "compress.distill", *arguments, *sets]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `out/easy_vqa` is a finished short run. It is read, never written."""
    folder = tmp_path_factory.mktemp("run")
    done = distill(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "printed.txt").write_text(done.stdout, encoding="utf-8")
    return folder
