"""What the rows of a study are measured by: one set of photos, and the teacher's bundle to be timed beside."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Cell, evaluate
from benchmarks.timing import machine, versions
from compress.data import Corpus, open_dataset
from compress.deploy import evalset
from compress.draft import Draft
from compress.engines import cpu_targets
from compress.hold_out import held_out
from compress.installed import environment
from compress.interim import graph_bytes, interim_bundle, precision_of, subject
from compress.measure import PACKAGES
from compress.progress import bar
from compress.speed import speed
from compress.store import identity
from runtimes import FeedError, RecipeError, Unavailable, VerifyError
from sdk.bundle import MANIFEST

SECONDS = 2.0  # of timing each row against the teacher, in each of its arithmetics


class Yardstick:
    """`target`: the first CPU engine. `val`: how many photos with a known label are of the validation split; they come
    first, after them those that are held out of training."""

    def __init__(self, teacher: Draft, folder: Path, share: float) -> None:
        """`teacher`: the draft that has teacher and store. `folder`: for bundles. `share`: see compress/hold_out.py.

        Raises Unavailable without a CPU engine, RecipeError where no validation image has a known label.
        """
        self._draft, self._folder = teacher, folder
        self._corpus = open_dataset(teacher.dataset.name, teacher.dataset.fields).load()
        self._set, self.val = _measured_on(self._corpus, share)
        self.target = str(cpu_targets()[0])
        if not self.val:
            raise RecipeError(
                f"{self._corpus.name} has no validation image with a known label; a study has nothing to measure on"
            )

    def about(self) -> dict[str, Any]:
        """What was measured on, as JSON: the photos by name, those of `correct` in a row's figures."""
        known = [self._set.images[place] for place in np.flatnonzero(self._set.label >= 0)]
        root = os.path.commonpath([path.parent for path in known])
        return {
            "data": {"name": self._set.name, "fingerprint": self._corpus.fingerprint, "val": self.val},
            "photos": [path.relative_to(root).as_posix() for path in known],
            "target": self.target,
            "machine": machine(),
            "versions": versions(*PACKAGES),
        }

    def student(self, after: Draft, key: str) -> dict[str, Any]:
        """The figures of the student in a draft: of its bundle, where it has one."""
        if subject(self._draft, after) == "bundle":
            return self.bundle(after.bundles["student"])
        return self.bundle(interim_bundle(after, "student", self._corpus, self._folder / f"student-{key[:16]}"))

    def bundle(self, path: Path, only_val: bool = False) -> dict[str, Any]:
        """The figures of a bundle: `correct` has a letter per photo, 1 for right. `only_val`: on validation alone."""
        split = _first(self._set, len(self._corpus.val.images)) if only_val else self._set
        precision = precision_of(path)
        about = {"precision": precision, "n": int((split.label >= 0).sum())}
        try:
            with bar("study: photos", len(split.images)) as tick:
                result = evaluate(path, split, Cell(self.target, precision), tick)
            pairs = {"teacher": self._teacher(), "student": path}
            timed = speed(pairs, split, [self.target], SECONDS, precision)
        except (FeedError, Unavailable, VerifyError) as error:  # a model that gives zeros is a finding, not the end
            return {**about, "why": str(error)}
        return {
            **about,
            "correct": "".join("1" if right else "0" for right in result.correct),
            "compute": result.ran_on["image"][1],
            "bytes": graph_bytes(path, result),
            "speed": timed,
        }

    def _teacher(self) -> Path:
        """The teacher's bundle, made once for each teacher, and again by other code or engines."""
        teacher = identity(self._draft.need("teacher", "study"))
        bundle = self._folder / f"teacher-{teacher[:16]}-{environment()[:8]}"
        if not (bundle / MANIFEST).is_file():
            for other in self._folder.glob("teacher-*"):
                shutil.rmtree(other)
            interim_bundle(self._draft, "teacher", self._corpus, bundle)
        return bundle


def _measured_on(corpus: Corpus, share: float) -> tuple[EvalSet, int]:
    """The validation split and the train photos that are held out, without questions; and how many of the former have a
    known label."""
    val, train = evalset(corpus, "val"), evalset(corpus, "train")
    places = held_out(train.label, share)
    both = dataclasses.replace(
        val,
        split="val and held out" if len(places) else "val",
        images=(*val.images, *(train.images[place] for place in places)),
        label=np.concatenate([val.label, train.label[places]]),
        possible=np.concatenate([val.possible, train.possible[places]]),
        questions=(),
        groups=(),
        texts=(),
    )
    return both, int((val.label >= 0).sum())


def _first(whole: EvalSet, count: int) -> EvalSet:
    return dataclasses.replace(
        whole, images=whole.images[:count], label=whole.label[:count], possible=whole.possible[:count]
    )
