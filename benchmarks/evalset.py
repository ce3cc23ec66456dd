"""An evaluation set as plain files, written by `compress`, read by benchmarks, easy for users to make themselves.

    eval.json         {"format": 1, "name": ..., "split": ..., "labels": [{"label": ..., "prompts": [...],
                      "group": ..., "text": ...}]}   (group and text may be missing)
    images.jsonl      {"image": "images/0.png", "label": "red circle" | null, "possible": ["red circle", ...]}
    questions.jsonl   {"image": "images/0.png", "question": ..., "answer": ...}   (may be missing)
    images/           the image files

`label` is null where the data does not determine it; `possible` then lists what it does not rule out. `group` is the
coarse class that a label belongs to, `text` describes the product.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.json_lines import read_lines, write_lines
from runtimes import RecipeError

FORMAT = 1


@dataclass(frozen=True)
class EvalSet:
    """N images with labels. `label`: int64 (N,), -1 where not known. `possible`: bool (N, K).

    `questions`: (position of the image, question, answer). `groups`, `texts`: of each label its coarse class and its
    product text, "" where it has none; `()` means that no label has one.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    prompts: Mapping[str, tuple[str, ...]]
    images: tuple[Path, ...]
    label: NDArray[np.int64]
    possible: NDArray[np.bool_]
    questions: tuple[tuple[int, str, str], ...]
    groups: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        none = ("",) * len(self.labels)
        object.__setattr__(self, "groups", self.groups or none)
        object.__setattr__(self, "texts", self.texts or none)


def write_evalset(folder: Path, evalset: EvalSet) -> None:
    """Write `evalset` with copies of its images into the folder, which must not exist."""
    (folder / "images").mkdir(parents=True)
    names = [f"images/{index}{path.suffix.lower()}" for index, path in enumerate(evalset.images)]
    for name, path in zip(names, evalset.images, strict=True):
        shutil.copyfile(path, folder / name)
    labels = []
    for label, group, text in zip(evalset.labels, evalset.groups, evalset.texts, strict=True):
        more = {name: value for name, value in (("group", group), ("text", text)) if value}
        labels.append({"label": label, "prompts": list(evalset.prompts[label]), **more})
    about = {"format": FORMAT, "name": evalset.name, "split": evalset.split, "labels": labels}
    (folder / "eval.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = []
    for index, name in enumerate(names):
        known = int(evalset.label[index])
        possible = [evalset.labels[k] for k in np.flatnonzero(evalset.possible[index])]
        rows.append({"image": name, "label": evalset.labels[known] if known >= 0 else None, "possible": possible})
    write_lines(folder / "images.jsonl", rows)
    asked = [{"image": names[image], "question": q, "answer": a} for image, q, a in evalset.questions]
    write_lines(folder / "questions.jsonl", asked)


def read_evalset(folder: Path) -> EvalSet:
    """Read an evaluation folder. Raises RecipeError naming the file and line that is wrong, or missing images."""
    path = folder / "eval.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        listed = [
            (item["label"], item["prompts"], item.get("group", ""), item.get("text", "")) for item in about["labels"]
        ]
        name, split, version = about["name"], about["split"], about["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{folder} is not an evaluation folder: eval.json: {error!r}; give the eval folder of a run"
        ) from error
    if version != FORMAT:
        raise RecipeError(f"{folder} has evaluation format {version}; this version reads {FORMAT}")
    prompts, groups, texts = _read_labels(path, listed)
    labels = tuple(prompts)
    images, label, possible = _read_images(folder, labels)
    missing = [image for image in images if not _inside(folder, image)]
    if missing:
        raise RecipeError(
            f"{folder} lacks {len(missing)} of its {len(images)} images, the first is {missing[0]!r}; copy it again"
        )
    paths, questions = tuple(folder / image for image in images), _read_questions(folder / "questions.jsonl", images)
    return EvalSet(name, split, labels, prompts, paths, label, possible, questions, groups, texts)


def some_of(evalset: EvalSet, count: int) -> EvalSet:
    """At most `count` images of a set, evenly spread over it, with the questions about them.

    If these are all images without a label, those that have one instead: accuracy needs it.
    """
    if count >= len(evalset.images):
        return evalset
    kept, known = _spread(np.arange(len(evalset.images)), count), np.flatnonzero(evalset.label >= 0)
    if len(known) and not np.isin(kept, known).any():
        kept = _spread(known, count)
    place = {int(old): new for new, old in enumerate(kept)}
    return dataclasses.replace(
        evalset,
        images=tuple(evalset.images[index] for index in kept),
        label=evalset.label[kept],
        possible=evalset.possible[kept],
        questions=tuple((place[image], q, a) for image, q, a in evalset.questions if image in place),
    )


def _spread(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    count = min(count, len(places))
    rows = np.linspace(0, len(places) - 1, count).round().astype(np.int64)
    return np.asarray(places[rows], np.int64)


def _read_labels(
    path: Path, listed: list[tuple[Any, Any, Any, Any]]
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...], tuple[str, ...]]:
    """Prompts by label, groups and texts, of what eval.json lists."""
    found: dict[str, tuple[str, ...]] = {}
    for number, (label, prompts, group, text) in enumerate(listed, 1):
        where = f"{path}: label {number}"
        if not _is_text(label) or label in found:
            raise RecipeError(f"{where}: wanted a text that is not empty and was not listed before, got {label!r}")
        if not isinstance(prompts, list) or not prompts or not all(_is_text(prompt) for prompt in prompts):
            raise RecipeError(f"{where}: wanted its prompts as a list of texts that are not empty, got {prompts!r}")
        for name, value in (("group", group), ("text", text)):
            if value != "" and not _is_text(value):
                raise RecipeError(f"{where}: wanted its {name} as a text that is not blank, or none, got {value!r}")
        found[label] = tuple(prompts)
    if not found:
        raise RecipeError(f"{path} lists no label; give at least one")
    return found, tuple(group for *_, group, _ in listed), tuple(text for *_, text in listed)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _read_images(folder: Path, labels: tuple[str, ...]) -> tuple[dict[str, int], NDArray[np.int64], NDArray[np.bool_]]:
    """images.jsonl: name -> position, label (N,), possible (N, K)."""
    place = {label: index for index, label in enumerate(labels)}
    images: dict[str, int] = {}
    label: list[int] = []
    rows: list[NDArray[np.bool_]] = []
    for where, row in read_lines(folder / "images.jsonl"):
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


def _read_questions(path: Path, images: dict[str, int]) -> tuple[tuple[int, str, str], ...]:
    """questions.jsonl, if there is one; `images`: name -> position."""
    questions = []
    for where, row in read_lines(path) if path.exists() else ():
        try:
            asked = (images[row["image"]], row["question"], row["answer"])
        except (KeyError, TypeError) as error:
            raise RecipeError(f"{where}: wanted a known image, question and answer, got {row}") from error
        if not all(_is_text(text) for text in asked[1:]):
            raise RecipeError(f"{where}: wanted a question and an answer as texts that are not empty, got {row}")
        questions.append(asked)
    return tuple(questions)


def _inside(folder: Path, name: str) -> bool:
    try:
        path = (folder / name).resolve()
        return path.is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):  # a name that no file can have: with a NUL, or too long
        return False
