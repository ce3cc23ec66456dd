"""The command behind run.py: check, plan, measure, judge, write."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.accuracy import baselines
from benchmarks.cells import FULL, QUICK, Effort, measure_cells, work_in
from benchmarks.checks import MADE_BY, check_bars, check_labels, check_out, check_same_recipe
from benchmarks.evalset import EvalSet, read_evalset, some_of
from benchmarks.figures import figures
from benchmarks.plan import Plan, make_plan
from benchmarks.progress import bar
from benchmarks.report import show, write_report
from benchmarks.require import NAMES, Outcome, check_targets, judge, parse_bar
from benchmarks.samples import Samples
from benchmarks.timing import machine, versions
from benchmarks.turns import layer_costs, speedups
from runtimes import PupilError, RecipeError
from sdk.bundle import open_bundle

PACKAGES = ("edge-pupil", "openvino", "onnxruntime", "onnxruntime-gpu", "torch", "numpy", "opencv-python-headless")
INTERRUPTED, CLOSED = 130, 141  # what a shell calls a program that Ctrl-C, or a closed pipe, ended


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; run: python benchmarks/run.py --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 when a requirement is missed, 2 for bad input, in one line; 130 when interrupted, 141 when nobody
    reads what it prints."""
    try:
        asked = _parse(arguments)
        if asked.list_names:
            print("\n".join(f"{name:<26} {what}" for name, what in NAMES.items()), flush=True)
            return 0
        return _run(asked)
    except BrokenPipeError:  # `| head`; without another stdout Python would complain once more while it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except PupilError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"interrupted; {str(stop) or 'nothing was written'}", file=sys.stderr)
        return INTERRUPTED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python benchmarks/run.py", description="Measure a teacher and its student on every target that opens."
    )
    parser.add_argument("--teacher", type=Path, help="the teacher's bundle")
    parser.add_argument("--student", type=Path, help="the student's bundle")
    parser.add_argument("--eval", type=Path, help="the evaluation folder of their run")
    parser.add_argument("--on", nargs="+", action="extend", metavar="TARGET", help="ov:cpu, pt:cpu, ...; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer images and samples: a look, not a decision")
    parser.add_argument("--out", type=Path, help="the folder of the report; default: benchmark, beside the student")
    parser.add_argument(
        "--require", action="append", default=[], metavar="EXPR", help='"student.zero_shot.drop <= 1.0"'
    )
    parser.add_argument(
        "--program", type=Path, help="the teacher's image program for pt: targets; default: TEACHER.pt2"
    )
    parser.add_argument("--list-names", action="store_true", help="the figures that --require knows")
    asked = parser.parse_args(arguments)
    missing = [name for name in ("teacher", "student", "eval") if getattr(asked, name) is None]
    if missing and not asked.list_names:
        parser.error(f"give --{missing[0]}")
    return asked


def _run(asked: argparse.Namespace) -> int:
    started = time.perf_counter()
    bars = [parse_bar(text) for text in asked.require]
    out: Path = (asked.out or asked.student.resolve().parent / "benchmark").resolve()
    check_out(out)
    whole = read_evalset(asked.eval)
    bundles = {"teacher": open_bundle(asked.teacher), "student": open_bundle(asked.student)}
    check_same_recipe(bundles["teacher"], bundles["student"])
    for bundle in bundles.values():
        check_labels(bundle, whole)
    check_bars(bars, bundles, whole)
    effort = QUICK if asked.quick else FULL
    evalset = some_of(whole, effort.images)
    program = asked.program or asked.teacher.absolute().with_name(asked.teacher.absolute().name + ".pt2")
    with tempfile.TemporaryDirectory(prefix="pupil-bench-") as folder:
        plan = make_plan(bundles, asked.on, program, Path(folder))
        check_targets(bars, plan.targets)
        report, samples = _measure(plan, evalset, effort)
    found = figures(report)
    outcomes = [judge(bar_, found) for bar_ in bars]
    report |= {
        "quick": asked.quick,
        "data": _data(whole, evalset),
        **{who: {"name": bundle.manifest.name, "hash": bundle.hash} for who, bundle in bundles.items()},
        "required": [{"text": outcome.text, "met": outcome.met} for outcome in outcomes],
        "seconds": time.perf_counter() - started,
    }
    files = write_report(out, report, samples)
    try:
        _tell(report, files, outcomes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the report is in {out}") from None
    return 0 if all(outcome.met for outcome in outcomes) else 1


def _measure(plan: Plan, evalset: EvalSet, effort: Effort) -> tuple[dict[str, Any], Samples]:
    facts = {"facts": machine(), "versions": versions(*PACKAGES)}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    samples = Samples(key, facts)
    with bar(work_in(plan)) as tick:
        cells = measure_cells(plan, evalset, effort, samples, tick)
        fast = speedups(plan, evalset, effort, samples, tick)
        layer = layer_costs(plan, evalset, effort, samples, tick)
    return {
        "made_by": MADE_BY,
        "format": 1,
        "targets": list(plan.targets),
        "cells": cells,
        "speedups": fast,
        "layer": layer,
        "baselines": baselines(evalset),
        "not_opened": [asdict(skipped) for skipped in plan.skipped],
        "machine": facts["facts"],
        "machine_key": key,
        "versions": facts["versions"],
        "effort": asdict(effort),
    }, samples


def _data(whole: EvalSet, evalset: EvalSet) -> dict[str, Any]:
    return {
        "name": evalset.name,
        "split": evalset.split,
        "images": len(evalset.images),
        "all_images": len(whole.images),
        "labels": len(evalset.labels),
        "questions": len(evalset.questions),
    }


def _tell(report: Mapping[str, Any], files: Sequence[Path], outcomes: Sequence[Outcome]) -> None:
    show(report)
    for path in files:
        print(path)
    if report["picture"]:
        print(report["picture"], file=sys.stderr)
    for outcome in outcomes:
        print(outcome.text, file=sys.stdout if outcome.met else sys.stderr)
