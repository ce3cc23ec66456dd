"""The cache of compiled engines: keys, use, size, and what is never loaded. No engine and no GPU in it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtimes._engine_cache import EngineCache

ROOT = Path(__file__).parents[2]
FACTS: dict[str, object] = {
    "graph": "ab" * 32,
    "tensorrt": "10.16.1.11",
    "cuda": 12040,
    "driver": "550.54.15",
    "gpu": "NVIDIA RTX A2000",
    "capability": [8, 6],
    "variant": "f16",
    "rows": [1, 1],
}


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.engine"))


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "deep" / "trt")
    assert cache.load(FACTS) is None
    cache.store(FACTS, b"plan")
    assert cache.load(FACTS) == b"plan"
    assert EngineCache(tmp_path / "deep" / "trt").load(dict(reversed(FACTS.items()))) == b"plan"
    cache.store(FACTS, b"newer")
    assert cache.load(FACTS) == b"newer"
    assert [path.suffix for path in (tmp_path / "deep" / "trt").iterdir()] == [".engine"]
    cache.drop(FACTS)
    cache.drop(FACTS)  # a second time does no harm
    assert cache.load(FACTS) is None


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("graph", "cd" * 32),
        ("tensorrt", "11.4.0.106"),
        ("cuda", 13000),
        ("driver", "580.1"),
        ("gpu", "NVIDIA RTX A2000 12GB"),
        ("capability", [8, 9]),
        ("variant", "int8+f16"),
        ("rows", [1, 32]),
    ],
)
def test_every_fact_is_part_of_the_key(tmp_path: Path, name: str, other: object) -> None:
    cache = EngineCache(tmp_path)
    cache.store(FACTS, b"plan")
    changed = FACTS | {name: other}
    assert cache.load(changed) is None
    cache.store(changed, b"another")
    assert (cache.load(FACTS), cache.load(changed)) == (b"plan", b"another")


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _longer(data: bytes) -> bytes:
    return data + b"x"


def _other_magic(data: bytes) -> bytes:
    return b"X" + data[1:]


def _no_header(data: bytes) -> bytes:
    return data[:15] + (5).to_bytes(4, "little") + b"[1,2]"


def _huge_header(data: bytes) -> bytes:
    return data[:15] + b"\xff\xff\xff\xff" + data[19:]


def _no_json(data: bytes) -> bytes:
    return data[:19] + b"{{" + data[21:]


def _empty(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "it is damaged"),
        (_flipped, "it is damaged"),
        (_longer, "it is damaged"),
        (_other_magic, "it is no entry of this cache"),
        (_empty, "it is no entry of this cache"),
        (_no_header, "it was made for something else"),
        (_huge_header, "its header has 4294967295 bytes"),
        (_no_json, "Expecting property name"),
    ],
)
def test_a_damaged_entry_is_deleted_not_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object, reason: str
) -> None:
    cache = EngineCache(tmp_path)
    cache.store(FACTS, b"plan")
    (path,) = entries(tmp_path)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.load(FACTS) is None
    assert reason in caplog.text
    assert "is not used, and is made again" in caplog.text
    assert not entries(tmp_path)
    cache.store(FACTS, b"again")
    assert cache.load(FACTS) == b"again"


def test_an_entry_of_another_machine_is_deleted_not_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whole and healthy, but under a name that is not its own: copied, or renamed."""
    cache = EngineCache(tmp_path)
    cache.store(FACTS, b"plan")
    (mine,) = entries(tmp_path)
    other = EngineCache(tmp_path / "other")
    other.store(FACTS | {"gpu": "Orin"}, b"theirs")
    (theirs,) = entries(tmp_path / "other")
    mine.write_bytes(theirs.read_bytes())
    assert cache.load(FACTS) is None
    assert "it was made for something else" in caplog.text
    assert not entries(tmp_path)


def aged(folder: Path, path: Path, seconds: float) -> None:
    when = time.time() - seconds
    os.utime(folder / path, (when, when))


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=3500)
    facts = [FACTS | {"graph": str(number)} for number in range(4)]
    stored = []
    for number in range(3):
        known = set(entries(tmp_path))
        cache.store(facts[number], bytes(600))
        (new,) = set(entries(tmp_path)) - known
        stored.append(new)
    for age, path in zip((300, 200, 100), stored, strict=True):
        aged(tmp_path, path, age)
    assert cache.load(facts[0]) is not None  # so the second is now the oldest
    cache.store(facts[3], bytes(600))
    assert [cache.load(each) is not None for each in facts] == [True, False, True, True]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 3500


def test_the_newest_stays_whatever_its_clock_says(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=1200)
    cache.store(FACTS, bytes(500))
    (first,) = entries(tmp_path)
    aged(tmp_path, first, -5000)  # a clock that was ahead
    cache.store(FACTS | {"cuda": 1}, bytes(500))
    assert cache.load(FACTS | {"cuda": 1}) is not None
    assert cache.load(FACTS) is None


def test_an_engine_beyond_the_limit_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = EngineCache(tmp_path, limit=1000)
    cache.store(FACTS, bytes(100))
    cache.store(FACTS | {"cuda": 1}, bytes(2000))
    assert "is not kept: the cache holds 1000" in caplog.text
    assert cache.load(FACTS) is not None
    assert len(entries(tmp_path)) == 1


def test_what_a_killed_writer_left_goes_after_a_while(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for name in ("old.tmp", "new.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "README").write_text("not ours")
    aged(tmp_path, Path("old.tmp"), 7200)
    cache.store(FACTS, b"plan")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".engine") == ["README", "new.tmp"]


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    EngineCache(tmp_path).store(FACTS, b"plan")
    assert "engines cannot be kept in" in caplog.text


def test_a_place_that_is_no_folder_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("x")
    cache = EngineCache(tmp_path / "file")
    cache.store(FACTS, b"plan")
    assert "are made anew each time" in caplog.text
    assert cache.load(FACTS) is None


def test_a_writer_killed_in_between_leaves_the_old_entry(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.store(FACTS, b"old")
    code = f"""
import json, os, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
from runtimes._engine_cache import EngineCache
pathlib.Path.replace = lambda *_: os._exit(9)  # the last moment before the entry has its name
EngineCache(pathlib.Path({str(tmp_path)!r})).store(json.loads(sys.argv[1]), b"new")
"""
    done = subprocess.run([sys.executable, "-c", code, json.dumps(FACTS)], timeout=60, check=False)
    assert done.returncode == 9
    assert cache.load(FACTS) == b"old"


def test_processes_that_write_together_leave_whole_entries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = f"""
import json, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
from runtimes._engine_cache import EngineCache
cache, facts = EngineCache(pathlib.Path({str(tmp_path)!r}), limit=60_000), json.loads(sys.argv[1])
for turn in range(20):
    mine = facts | {{"graph": str(turn % 7)}}
    cache.store(mine, bytes([turn % 7]) * 9_000)
    found = cache.load(mine)
    assert found in (None, bytes([turn % 7]) * 9_000)
"""
    with caplog.at_level(logging.WARNING):
        writers = [
            subprocess.Popen([sys.executable, "-c", code, json.dumps(FACTS)], stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [each.communicate(timeout=120)[1] for each in writers]
    assert [each.returncode for each in writers] == [0, 0], said
    assert not any(said), said
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 60_000
