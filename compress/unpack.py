"""Samples that come one after the other, written out as photos and a CSV: one sample is in memory at a time.

A source is in parts (shards, stretches of rows). Each becomes a folder, built beside its place and renamed:

FOLDER/00000/000000.jpg ...   the photos, called by their number: nothing from outside is part of a path
FOLDER/00000/rows.csv         one line for each: image, label, text, group, split, sha256
FOLDER/00000/part.json        what was read, how many samples, how many were corrupt, and the sha256 of rows.csv
FOLDER/photos-SHA256.csv      the rows of all parts, for compress/layouts/table.py

A part that is there is not read again; one that was cut off is, from its beginning.
"""

import csv
import hashlib
import logging
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from compress.attempt import read_record, write_record
from compress.disk import check_space
from compress.file_hash import sha256_once
from compress.lock import held
from compress.samples import Part, Read, look
from runtimes import RecipeError, Unavailable

COLUMNS = ("image", "label", "text", "group", "split", "sha256")
ROWS, PART = "rows.csv", "part.json"
EXAMPLES = 3
ATTEMPTS, PAUSE = 3, 1.0  # seconds: a pause doubles with each attempt
_log = logging.getLogger(__name__)


def fetch(parts: Sequence[Part], read: Read, folder: Path, most: int, ranks: tuple[int, int] = (0, 1)) -> None:
    """Unpack the parts that are not there. `most`: how many corrupt samples may be left out. `ranks`: (rank, world
    size); part number i is of rank i modulo the world size, so their counts differ by one at most.

    Raises RecipeError for more corrupt samples, a damaged part, a folder that another process fills or a full disk;
    Unavailable for a part that cannot be reached. What was finished stays.
    """
    own = range(len(parts))[ranks[0] :: ranks[1]]
    there = {at: _record(folder, at) for at, part in enumerate(parts) if finished(folder, at, part)}
    if not (left := [at for at in own if at not in there]):
        return
    from compress.progress import bar  # here, so that a mistake is told without rich

    with bar("unpacking the data", len(own), len(own) - len(left)) as tick:
        for at in left:
            _unpack(parts[at], read, folder / f"{at:05d}", most, _corrupt(there.values()))
            there[at] = _record(folder, at)
            tick(parts[at].name.rpartition("/")[2])
    if found := _corrupt(there[at] for at in left):
        _log.warning("%d corrupt samples were left out; data.max_corrupt allows %d", found, most)


def join(parts: Sequence[Part], folder: Path, most: int) -> Path:
    """The CSV of all parts, which are all there: the rows of each, called by the sha256 of all.

    Raises RecipeError for more corrupt samples than `most`, whoever unpacked them.
    """
    records = [_record(folder, at) for at in range(len(parts))]
    if (found := _corrupt(records)) > most:
        raise _too_many(found, most, [line for record in records for line in record["examples"]])
    digests = "".join(str(record["rows"]) for record in records)
    file = folder / f"photos-{hashlib.sha256(digests.encode()).hexdigest()[:16]}.csv"
    if file.is_file():
        return file
    building = file.with_name(f"{file.stem}.{uuid.uuid4().hex[:8]}.tmp")  # processes may join at once, each the same
    with building.open("w", encoding="utf-8", newline="") as joined:
        rows = csv.writer(joined)
        rows.writerow(COLUMNS)
        for at in range(len(parts)):
            with (folder / f"{at:05d}" / ROWS).open(encoding="utf-8", newline="") as own:
                rows.writerows((f"{at:05d}/{name}", *cells) for name, *cells in csv.reader(own))
    building.replace(file)
    return file


def finished(folder: Path, at: int, part: Part) -> bool:
    """Whether `folder` has part number `at`, as it was written."""
    record, rows = _record(folder, at), folder / f"{at:05d}" / ROWS
    same = (record.get("name"), record.get("stamp")) == (part.name, part.stamp)
    return same and rows.is_file() and sha256_once(rows) == record.get("rows")


def _record(folder: Path, at: int) -> dict[str, Any]:
    return read_record(folder / f"{at:05d}" / PART)


def _corrupt(records: Iterable[dict[str, Any]]) -> int:
    return sum(record["corrupt"] for record in records)


def _too_many(count: int, most: int, examples: Sequence[str]) -> RecipeError:
    return RecipeError(
        f"{count} samples cannot be used, and data.max_corrupt allows {most}: {'; '.join(examples[:EXAMPLES])}; mend "
        "them, or leave more out with --set data.max_corrupt=N"
    )


def _unpack(part: Part, read: Read, place: Path, most: int, before: int) -> None:
    """Make the folder `place`. `before`: how many samples of other parts are corrupt."""
    building = place.with_name(f"{place.name}.tmp")
    check_space(place.parent, part.mbytes, f"unpacking {part.name}", "data.cache")
    try:
        with held(place.with_name(f"{place.name}.lock"), "data.cache"):
            for attempt in range(ATTEMPTS):
                shutil.rmtree(building, ignore_errors=True)
                building.mkdir(parents=True)
                try:
                    _write(part, read, building, most, before)
                    break
                except Unavailable:
                    if attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(PAUSE * 2**attempt)
            shutil.rmtree(place, ignore_errors=True)
            building.replace(place)
    except OSError as error:
        raise RecipeError(f"cannot write {place}: {error.strerror or error}; see to that, and run again") from error


def _write(part: Part, read: Read, building: Path, most: int, before: int) -> None:
    written, examples, corrupt = 0, list[str](), 0
    with (building / ROWS).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        for sample in read(part):
            why, suffix = look(sample)
            if why:
                corrupt += 1
                if len(examples) < EXAMPLES:
                    examples.append(f"{part.name}, {sample.key[:200]!r}: {why}")
                if before + corrupt > most:
                    raise _too_many(before + corrupt, most, examples)
                continue
            name = f"{written:06d}{suffix}"
            (building / name).write_bytes(sample.image)
            digest = hashlib.sha256(sample.image).hexdigest()
            text, group = (" ".join(each.split()) for each in (sample.text, sample.group))
            rows.writerow((name, sample.label.strip(), text, group, sample.split, digest))
            written += 1
    record = {"name": part.name, "stamp": part.stamp, "samples": written, "corrupt": corrupt, "examples": examples}
    write_record(building / PART, {**record, "rows": sha256_once(building / ROWS)})
