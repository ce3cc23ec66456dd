"""Rows that are written once: found again after a kill, in another order, among others, and never when damaged."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compress.rows import Keys, Rows, keys_of
from tests.conftest import ROOT

WIDTH = 4


def keys(*names: str) -> Keys:
    return keys_of(b"teacher", (name.encode() for name in names))


def values(*names: str) -> np.ndarray:
    """float32 (names, WIDTH), another row for each name."""
    return np.array([[*name.encode().ljust(WIDTH)] for name in names], np.float32)


def array(folder: Path, *names: str, dtype: str = "float32", name: str = "train") -> Rows:
    return Rows(folder, name, (1, len(names), WIDTH), dtype, keys(*names))


def fill(rows: Rows, *names: str) -> list[str]:
    """Write what is missing; returns the names of that."""
    missing = np.flatnonzero(rows.missing)
    made = [names[at] for at in missing]
    if made:
        rows.write(missing, values(*made))
    return made


def test_what_is_written_is_there_and_an_ordinary_array(tmp_path: Path) -> None:
    rows = array(tmp_path, "a", "b", "c")
    assert rows.missing.all()
    rows.write(np.array([2, 0]), values("c", "a"))
    rows.write(np.array([], np.int64), values())
    assert rows.missing.tolist() == [False, True, False]
    rows.write(np.array([1]), values("b"))
    np.save(tmp_path / "plain.npy", values("a", "b", "c")[None])
    assert rows.file.read_bytes() == (tmp_path / "plain.npy").read_bytes()
    assert rows.nbytes == 3 * WIDTH * 4
    assert not array(tmp_path, "a", "b", "c").missing.any()


def test_only_rows_that_changed_are_made_again(tmp_path: Path) -> None:
    fill(array(tmp_path, "a", "b", "c"), "a", "b", "c")
    other = array(tmp_path, "new", "c", "a", "b")
    assert fill(other, "new", "c", "a", "b") == ["new"], "whatever place they had"
    assert np.array_equal(np.load(other.file)[0], values("new", "c", "a", "b"))
    assert fill(array(tmp_path, "a", "b", "c"), "a", "b", "c") == []
    other.drop_others()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".index", ".npy"]
    assert fill(array(tmp_path, "a", "b", "new"), "a", "b", "new") == []


def test_of_an_array_of_another_kind_nothing_is_kept(tmp_path: Path) -> None:
    fill(array(tmp_path, "a", "b"), "a", "b")
    assert array(tmp_path, "a", "b", dtype="float16").missing.all()
    assert array(tmp_path, "a", "b", name="val").missing.all()
    assert Rows(tmp_path, "train", (2, 3), "float32", keys("a", "b")).missing.all()
    assert Rows(tmp_path, "train", (2, WIDTH), "float32", keys_of(b"another", [b"a", b"b"])).missing.all()


def test_another_key_for_each_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train has 3 rows and 2 keys; give one for each"):
        Rows(tmp_path, "train", (3, WIDTH), "float32", keys("a", "b"))


def test_a_damaged_row_is_named_and_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = array(tmp_path, "a", "b", "c")
    fill(rows, "a", "b", "c")
    data = bytearray(rows.file.read_bytes())
    data[-WIDTH * 4 - 1] ^= 1  # the last byte of "b"
    rows.file.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        again = array(tmp_path, "a", "b", "c")
    assert again.missing.tolist() == [False, True, False]
    assert f"{rows.file} is damaged: 1 of its rows are not what was written, and are made again" in caplog.text
    assert array(tmp_path, "b", "c").missing.tolist() == [True, False], "nor does another array take it"


@pytest.mark.parametrize("suffix", [".npy", ".index"])
def test_a_file_that_cannot_be_read_is_made_again(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = array(tmp_path, "a", "b")
    fill(rows, "a", "b")
    file = rows.file.with_suffix(suffix)
    file.write_bytes(file.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        other, same = array(tmp_path, "b", "c"), array(tmp_path, "a", "b")
    assert other.missing.all()
    assert same.missing.all()
    assert f"{file} is damaged (" in caplog.text
    fill(same, "a", "b")
    assert np.array_equal(np.load(same.file)[0], values("a", "b"))


def test_a_finished_step_keeps_its_bytes(tmp_path: Path) -> None:
    rows = array(tmp_path, "a", "b")
    rows.write(np.array([0]), values("a"))
    os.link(rows.file, tmp_path / "finished.npy")
    before = (tmp_path / "finished.npy").read_bytes()
    fill(array(tmp_path, "a", "b"), "a", "b")
    assert (tmp_path / "finished.npy").read_bytes() == before
    assert np.array_equal(np.load(rows.file)[0], values("a", "b"))


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    """Whoever finished with it holds it as a link."""
    rows = array(tmp_path, "a", "b", "c")
    rows.write(np.array([0, 2]), values("a", "c"))
    rows.write(np.array([0, 1, 2]), values("x", "b", "y"))
    assert np.array_equal(np.load(rows.file)[0], values("a", "b", "c"))
    assert not array(tmp_path, "a", "b", "c").missing.any()


CHILD = """
import os, sys
from pathlib import Path
import numpy as np
from compress.rows import Rows, keys_of
count, width = 4000, 256
keys = keys_of(b"", (str(n).encode() for n in range(count)))
rows = Rows(Path(sys.argv[1]), "train", (count, width), "float16", keys)
print(int((~rows.missing).sum()), flush=True)
for at in np.flatnonzero(rows.missing):
    rows.write(np.array([at]), np.full((1, width), at))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")
def test_killed_at_any_moment_nothing_is_lost_and_nothing_half_written_counts(tmp_path: Path) -> None:
    kept = [0]
    for _ in range(3):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", CHILD, str(tmp_path)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            kept.append(int(process.stdout.readline()))
            try:  # long enough to have written some rows
                process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    rows = Rows(tmp_path, "train", (4000, 256), "float16", keys_of(b"", (str(n).encode() for n in range(4000))))
    sound = np.flatnonzero(~rows.missing)
    assert kept == sorted(kept), "what was there stays"
    assert len(sound) >= kept[-1] > 0
    assert np.array_equal(np.load(rows.file)[sound], np.repeat(sound[:, None], 256, 1).astype(np.float16))
