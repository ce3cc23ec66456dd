"""The folder in which a step is being made, DIR/.work/NN-name.tmp: what outlives a killed attempt, and what does not.

A checkpoint (`checkpoint-*.pt`, see compress/train.py) goes to the next attempt if that is for the same key; every
other file may be half written, and goes.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD = "attempt.json"  # the key, and the seconds of the attempts before
CHECKPOINTS = "checkpoint-*.pt"


def begin(building: Path, key: str, keep: bool) -> float:
    """Make the folder ready for a step and return the seconds that earlier attempts took.

    With `keep`, what an attempt under the same `key` left as checkpoints stays. A killed attempt counts up to the last
    file that it wrote: nobody saw more of it.
    """
    record = read_record(building / RECORD) if keep else {}
    seconds = 0.0
    if record.get("key") == key:
        started = (building / RECORD).stat().st_mtime
        written = max(path.stat().st_mtime for path in building.rglob("*"))
        seconds = float(record.get("seconds", 0.0)) + max(0.0, written - started)
        kept = {building / RECORD, *building.glob(CHECKPOINTS)}
        for path in set(building.iterdir()) - kept:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif building.exists():
        shutil.rmtree(building)
    building.mkdir(parents=True, exist_ok=True)
    # Not over the old one: a kill between would leave checkpoints without their key.
    write_record(building / RECORD, {"key": key, "seconds": round(seconds, 2)})
    return seconds


def finish(building: Path, folder: Path) -> None:
    """Rename the folder to `folder`, replacing an older one, without what only a next attempt would need."""
    if folder.exists():
        shutil.rmtree(folder)
    # Renamed first: killed in between, a whole step has a few files too many, and not too few.
    building.replace(folder)
    for path in (folder / RECORD, *folder.glob(CHECKPOINTS)):
        path.unlink(missing_ok=True)


def read_record(file: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none that can be read."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all. Raises OSError when the disk is full."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(record), encoding="utf-8")
    new.replace(file)
