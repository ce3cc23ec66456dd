"""An evaluation set as plain files, written by `compress`, read by benchmarks, easy for users to make themselves.

    eval.json         {"format": 1, "name": ..., "split": ..., "labels": [{"label": ..., "prompts": [...]}]}
    images.jsonl      {"image": "images/0.png", "label": "red circle" | null, "possible": ["red circle", ...]}
    questions.jsonl   {"image": "images/0.png", "question": ..., "answer": ...}   (may be missing)
    images/           the image files

`label` is null where the data does not determine it; `possible` then lists what it does not rule out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes import RecipeError

FORMAT = 1


@dataclass(frozen=True)
class EvalSet:
    """N images with labels. `label`: int64 (N,), -1 where not known. `possible`: bool (N, K).

    `questions`: (position of the image, question, answer).
    """

    name: str
    split: str
    labels: tuple[str, ...]
    prompts: Mapping[str, tuple[str, ...]]
    images: tuple[Path, ...]
    label: NDArray[np.int64]
    possible: NDArray[np.bool_]
    questions: tuple[tuple[int, str, str], ...]


def write_evalset(folder: Path, evalset: EvalSet) -> None:
    """Write `evalset` with copies of its images into the folder, which must not exist."""
    (folder / "images").mkdir(parents=True)
    names = [f"images/{index}{path.suffix.lower()}" for index, path in enumerate(evalset.images)]
    for name, path in zip(names, evalset.images, strict=True):
        shutil.copyfile(path, folder / name)
    labels = [{"label": label, "prompts": list(evalset.prompts[label])} for label in evalset.labels]
    about = {"format": FORMAT, "name": evalset.name, "split": evalset.split, "labels": labels}
    (folder / "eval.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = []
    for index, name in enumerate(names):
        known = int(evalset.label[index])
        possible = [evalset.labels[k] for k in np.flatnonzero(evalset.possible[index])]
        rows.append({"image": name, "label": evalset.labels[known] if known >= 0 else None, "possible": possible})
    _write_lines(folder / "images.jsonl", rows)
    asked = [{"image": names[image], "question": q, "answer": a} for image, q, a in evalset.questions]
    _write_lines(folder / "questions.jsonl", asked)


def read_evalset(folder: Path) -> EvalSet:
    """Read an evaluation folder. Raises RecipeError naming the file and line that is wrong, or missing images."""
    try:
        about = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
        labels = tuple(item["label"] for item in about["labels"])
        prompts = {item["label"]: tuple(item["prompts"]) for item in about["labels"]}
        name, split, version = about["name"], about["split"], about["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{folder} is not an evaluation folder: eval.json: {error!r}") from error
    if version != FORMAT:
        raise RecipeError(f"{folder} has evaluation format {version}; this version reads {FORMAT}")
    images, label, possible = _read_images(folder, labels)
    missing = [image for image in images if not _inside(folder, image)]
    if missing:
        raise RecipeError(f"{folder} lacks {len(missing)} of its {len(images)} images, the first is {missing[0]!r}")
    questions = []
    if (folder / "questions.jsonl").exists():
        for where, row in _read_lines(folder / "questions.jsonl"):
            try:
                questions.append((images[row["image"]], str(row["question"]), str(row["answer"])))
            except (KeyError, TypeError) as error:
                raise RecipeError(f"{where}: wanted a known image, question and answer, got {row}") from error
    paths = tuple(folder / image for image in images)
    return EvalSet(name, split, labels, prompts, paths, label, possible, tuple(questions))


def _read_images(folder: Path, labels: tuple[str, ...]) -> tuple[dict[str, int], NDArray[np.int64], NDArray[np.bool_]]:
    """images.jsonl: name -> position, label (N,), possible (N, K)."""
    place = {label: index for index, label in enumerate(labels)}
    images: dict[str, int] = {}
    label: list[int] = []
    rows: list[NDArray[np.bool_]] = []
    for where, row in _read_lines(folder / "images.jsonl"):
        try:
            name, known = row["image"], -1 if row["label"] is None else place[row["label"]]
            possible = np.zeros(len(labels), bool)
            possible[[place[each] for each in row["possible"]]] = True
        except (KeyError, TypeError) as error:
            raise RecipeError(f"{where}: wanted image, label, possible with labels of eval.json, got {row}") from error
        if not isinstance(name, str) or name in images:
            raise RecipeError(f"{where}: wanted the name of an image that was not listed before, got {name!r}")
        if known >= 0 and not possible[known]:
            raise RecipeError(f"{where}: the label {row['label']!r} is not among those it calls possible")
        images[name] = len(label)
        label.append(known)
        rows.append(possible)
    if not images:
        raise RecipeError(f"{folder / 'images.jsonl'} lists no image; give at least one")
    return images, np.array(label, np.int64), np.stack(rows)


def _inside(folder: Path, name: str) -> bool:
    path = (folder / name).resolve()
    return path.is_relative_to(folder.resolve()) and path.is_file()


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        # Not splitlines(): a text may hold U+2028, which is no line end in JSON Lines.
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except ValueError as error:
            raise RecipeError(f"{path}:{number} is not JSON: {error}") from error
