"""Teacher and student bundles on the test split, through the SDK, on every CPU engine: what was lost and gained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.class_losses import losses_by_class
from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Cell, Result, evaluate
from benchmarks.metrics import question_only
from benchmarks.shop import as_json, shop_drops, shop_figures
from benchmarks.stats import clustered, clustered_drop, paired_drop, wilson
from benchmarks.timing import machine, versions
from compress.engines import cpu_targets
from compress.progress import bar
from compress.results import Measured, asked_of
from compress.speed import eager_speed, speed
from compress.steps.embed import HELD_OUT_WORDS
from sdk.bundle import Bundle, open_bundle
from sdk.text import Tokenizer

PACKAGES = ("edge-pupil", "openvino", "onnxruntime", "torch", "timm", "transformers", "nncf", "onnx", "numpy")


def measure(
    teacher: Path, student: Path, program: Path, evalset: EvalSet, train: Sequence[tuple[str, str]], seconds: float
) -> Measured:
    """Evaluate, compare and time. `program`: the teacher's PyTorch image program. `train`: (question, answer) pairs for
    the question-only baseline. What the bundles weigh is known when they are published (compress/publish.py).

    Raises Unavailable without a CPU engine, and the SDK's errors.
    """
    engines = [str(target) for target in cpu_targets()]
    bundles = {"teacher": teacher, "student": student}
    keys = [("teacher", "fp32", e) for e in engines]
    keys += [("student", precision, e) for precision in ("fp32", "int8") for e in engines]
    results = {}
    with bar("pack: test split", len(keys) * len(evalset.images)) as tick:
        for who, precision, engine in keys:
            results[who, precision, engine] = evaluate(bundles[who], evalset, Cell(engine, precision), tick)
    headline = {"teacher": keys[0], "student": ("student", "int8", engines[0])}
    losses = losses_by_class(results[headline["teacher"]], results[headline["student"]], evalset)
    table = {
        "data": {"name": evalset.name, "split": evalset.split, "images": len(evalset.images)},
        "accuracy": _accuracy(results, results[headline["teacher"]], evalset),
        "parity": _parity(results, engines),
        "baselines": _baselines(evalset, train),
        "words": _words(open_bundle(student)),
        "speed": _speed(bundles, program, evalset, engines, seconds),
        **({"classes": [vars(each) for each in losses]} if losses else {}),
        "machine": machine(),
        "versions": versions(*PACKAGES),
    }
    return Measured(results, table, headline, asked_of(evalset), evalset)


def _accuracy(results: dict[tuple[str, str, str], Result], teacher: Result, evalset: EvalSet) -> list[dict[str, Any]]:
    rows = []
    asked = asked_of(evalset)
    for (who, precision, engine), result in results.items():
        row: dict[str, Any] = {
            "model": who,
            "precision": precision,
            "target": engine,
            "ran_on": {tower: " ".join(ran) for tower, ran in result.ran_on.items()},
            "top1": dataclasses.asdict(wilson(result.correct)),
            "top1_by_text": dataclasses.asdict(wilson(result.correct_by_text)),
            "map": dataclasses.asdict(result.retrieval.figure()),
            "norm_error": result.norm_error,
        }
        if result.answered is not None:
            row["answers"] = dataclasses.asdict(clustered(result.answered, asked))
        if shop := shop_figures(result):
            row["shop"] = as_json(shop)
        if who != "teacher":
            row["top1_drop"] = dataclasses.asdict(paired_drop(teacher.correct, result.correct))
            row["map_drop"] = dataclasses.asdict(teacher.retrieval.drop_to(result.retrieval))
            if lost_shop := shop_drops(teacher, result):
                row["shop_drop"] = as_json(lost_shop)
            if result.answered is not None and teacher.answered is not None:
                lost = clustered_drop(teacher.answered, result.answered, asked)
                row["answers_drop"] = dataclasses.asdict(lost)
        rows.append(row)
    return rows


def _parity(results: dict[tuple[str, str, str], Result], engines: list[str]) -> list[dict[str, Any]]:
    """Do engines agree on the same variant? Float graphs must, to rounding."""
    rows = []
    for who, precision in (("teacher", "fp32"), ("student", "fp32"), ("student", "int8")):
        for other in engines[1:]:
            one, two = results[who, precision, engines[0]], results[who, precision, other]
            cosine, text = (
                np.einsum("nd,nd->n", a.astype(np.float64), b.astype(np.float64))
                for a, b in ((one.images, two.images), (one.queries, two.queries))
            )
            rows.append(
                {
                    "model": who,
                    "precision": precision,
                    "targets": [engines[0], other],
                    "cosine_min": float(cosine.min()),
                    "text_cosine_min": float(text.min()),
                    "same_top1": float((one.top1 == two.top1).mean()),
                    "n": len(cosine),
                }
            )
    return rows


def _baselines(evalset: EvalSet, train: Sequence[tuple[str, str]]) -> dict[str, Any]:
    known = evalset.label[evalset.label >= 0]
    found: dict[str, Any] = {"chance_top1": 1 / len(evalset.labels)}
    found["largest_class_top1"] = dataclasses.asdict(wilson(known == np.bincount(known).argmax()))
    if train and evalset.questions:
        right = question_only(train, [(question, answer) for _, question, answer in evalset.questions])
        found["question_only"] = dataclasses.asdict(wilson(right))
    return found


def _speed(
    bundles: Mapping[str, Path], program: Path, evalset: EvalSet, engines: Sequence[str], seconds: float
) -> list[dict[str, Any]]:
    rows = speed(bundles, evalset, engines, seconds, "int8")
    computes = {row["target"]: row["student_compute"] for row in rows}
    return rows + eager_speed(bundles, program, evalset, computes, seconds, "int8")


def _words(student: Bundle) -> dict[str, int]:
    """Unknown tokens per unseen English word: 0 means that the word can be read."""
    tokens = Tokenizer.of(student)(HELD_OUT_WORDS)
    return dict(zip(HELD_OUT_WORDS, tokens.unknown, strict=True))
