"""Accuracy of each cell with its interval, what it lost to the teacher, and what can be had without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.class_losses import most_lost
from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Result
from benchmarks.metrics import question_only
from benchmarks.plan import Plan, Subject
from benchmarks.shop import as_json, shop_drops, shop_figures
from benchmarks.stats import clustered, clustered_drop, paired_drop, wilson


def accuracy_of(plan: Plan, subject: Subject, evalset: EvalSet, results: Mapping[str, Result]) -> dict[str, Any]:
    """Accuracy of a cell, and what it lost to the teacher's float graph on the same target, where that was measured.

    Questions about one image are drawn together: they are not independent.
    """
    result = results[str(subject)]
    row: dict[str, Any] = {
        "top1": asdict(wilson(result.correct)),
        "top1_by_text": asdict(wilson(result.correct_by_text)),
        "map": asdict(result.retrieval.figure()),
        "norm_error": result.norm_error,
    }
    if result.answered is not None:
        row["answers"] = asdict(clustered(result.answered, _images(evalset)))
    if shop := shop_figures(result):
        row["shop"] = as_json(shop)
    teachers = plan.on(subject.on, "teacher")
    if subject.who == "teacher" or not teachers:
        return row
    teacher = results[str(teachers[0])]
    row["against"] = str(teachers[0])
    row["top1_drop"] = asdict(paired_drop(teacher.correct, result.correct))
    if lost := shop_drops(teacher, result):
        row["shop_drop"] = as_json(lost)
    row["class_lost"] = most_lost(teacher, result, evalset)
    row["map_drop"] = asdict(teacher.retrieval.drop_to(result.retrieval))
    if result.answered is not None and teacher.answered is not None:
        row["answers_drop"] = asdict(clustered_drop(teacher.answered, result.answered, _images(evalset)))
    return row


def _images(evalset: EvalSet) -> NDArray[np.int64]:
    """Of each question the image: int64 (questions,)."""
    return np.array([image for image, _, _ in evalset.questions], np.int64)


def baselines(evalset: EvalSet) -> dict[str, Any]:
    """What is right without a model: `chance_top1`, `largest_class_top1`; and of the questions `chance_answers`,
    `largest_answer` and `question_only`. The last two guess by counting this very set: guessing could reach no more.
    """
    known = evalset.label[evalset.label >= 0]
    found: dict[str, Any] = {
        "chance_top1": 1 / len(evalset.labels),
        "largest_class_top1": asdict(wilson(known == np.bincount(known).argmax())),
    }
    if evalset.questions:
        pairs = [(question, answer) for _, question, answer in evalset.questions]
        found["question_only"] = asdict(clustered(question_only(pairs, pairs), _images(evalset)))
        found["chance_answers"] = 1 / len({answer for _, answer in pairs})
        commonest = question_only([("", answer) for _, answer in pairs], pairs)
        found["largest_answer"] = asdict(clustered(commonest, _images(evalset)))
    return found
