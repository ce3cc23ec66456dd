"""What will be measured: model x variant x target, each proved to open before the first clock starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import runtimes
import sdk
from benchmarks.evaluate import Cell
from benchmarks.programs import Model, Programs, programs_beside
from runtimes import PupilError, Unavailable, parse_target
from sdk.bundle import Bundle, open_bundle
from sdk.slim import slim

# Stored precision -> what is asked of the SDK: float graphs in f32 and as the engine likes, the others as they are.
ASKED: Mapping[str, tuple[str | None, ...]] = {"fp32": ("fp32", None), "int8": (None,)}


@dataclass(frozen=True)
class Subject:
    """One cell of the report: a model in a variant on a target.

    `stored`: precision of the stored weights; `precision`: what is asked of the SDK, None for the engine's default;
    `compute`: what the engine then reports for the image tower. `bundle`: the slim bundle of this cell, or for a `pt:`
    target the maker's, with `programs` (tower -> .pt2) beside it. `bytes`: size on disk of what the target needs.
    """

    who: str
    stored: str
    on: str
    precision: str | None
    compute: str
    bundle: Path
    bytes: int
    programs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def cell(self) -> Cell:
        """The same, as `evaluate` names it."""
        return Cell(self.on, self.precision)

    def __str__(self) -> str:
        return f"{self.who} {self.stored} {self.on} {self.compute}"

    def open(self) -> Model:
        """Open it; close it afterwards. Raises the SDK's errors."""
        return open_model(self.bundle, self.on, self.precision, self.programs)


@dataclass(frozen=True)
class Skipped:
    """A cell that is not measured, and why. `precision`: what was asked of the SDK, None for the engine's default."""

    who: str
    on: str
    stored: str
    reason: str
    precision: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is measured, target by target, and what is not."""

    targets: tuple[str, ...]
    subjects: tuple[Subject, ...]
    skipped: tuple[Skipped, ...]

    def on(self, target: str, who: str) -> list[Subject]:
        """Cells of one model on one target, its main one first: the student in its smallest variant that is no longer
        float, as the engine likes it; the teacher in float32 computed in f32."""
        found = [s for s in self.subjects if s.on == target and s.who == who]
        if who == "teacher":
            return sorted(found, key=lambda s: (s.stored != "fp32", s.precision is None))
        return sorted(found, key=lambda s: (s.stored == "fp32", s.bytes, s.precision is not None))


def open_model(bundle: Path, on: str, precision: str | None, programs: Mapping[str, Path]) -> Model:
    """A student, or programs where there are any. Raises the SDK's errors."""
    if programs:
        return Programs(open_bundle(bundle), programs, on)
    return sdk.load(bundle, on=on, precision=precision)


def make_plan(bundles: Mapping[str, Bundle], asked: Sequence[str] | None, program: Path, folder: Path) -> Plan:
    """Slim bundles for every cell into `folder`, each opened once.

    `bundles`: "teacher" and "student". `asked`: targets of --on; None means all that are here. `program`: the teacher's
    image program, for `pt:` targets. Raises Unavailable when a target that was asked for opens neither of the two
    bundles, or nothing opens at all.
    """
    targets = (
        list(dict.fromkeys(str(parse_target(on)) for on in asked))
        if asked
        else [str(target) for target in runtimes.targets()]
    )
    subjects: list[Subject] = []
    skipped: list[Skipped] = []
    for on in targets:
        runtime = parse_target(on).runtime
        before = len(subjects)
        for who, bundle in bundles.items():
            if runtime in runtimes.names() and runtimes.opens(runtime) != ".onnx":
                _add_programs(who, bundle, on, program, subjects, skipped)
            else:
                _add_graphs(who, bundle, on, folder, subjects, skipped)
        missed = [s for s in skipped if s.on == on]
        if asked and (before == len(subjects) or any(s.stored == "any" for s in missed)):
            reasons = "; ".join(dict.fromkeys(f"{s.who}: {s.reason}" for s in missed))
            raise Unavailable(f"{on} was asked for and does not open: {reasons}")
    if not subjects:
        reasons = "; ".join(f"{s.on} {s.who}: {s.reason}" for s in skipped) or "run: pip install 'edge-pupil[openvino]'"
        raise Unavailable(f"no target here opens these bundles: {reasons}")
    measured = tuple(on for on in targets if any(s.on == on for s in subjects))
    return Plan(measured, tuple(subjects), tuple(skipped))


def _add_graphs(
    who: str, bundle: Bundle, on: str, folder: Path, subjects: list[Subject], skipped: list[Skipped]
) -> None:
    runtime = parse_target(on).runtime
    here = {g.stored for g in bundle.variants("image").values() if runtime in g.families}
    if not here:
        skipped.append(Skipped(who, on, "any", f"{bundle.path} holds no graph for {runtime!r}"))
    for stored in sorted(here):
        if stored not in ASKED:
            skipped.append(Skipped(who, on, stored, f"{stored} variants are not measured yet"))
            continue
        found: dict[str, Subject] = {}
        path = folder / f"{who}-{stored}-{runtime}"
        for precision in ASKED[stored]:
            try:
                made = open_bundle(path) if path.exists() else slim(bundle, on, path, precision=stored)
                with sdk.load(path, on=on, precision=precision) as student:
                    compute = student.ran_on["image"].compute
            except PupilError as error:  # an engine that refuses f32 may still compute as it likes
                skipped.append(Skipped(who, on, stored, str(error), precision))
                continue
            # The same arithmetic twice would be the same cell: this engine's default is what the graph says.
            found.setdefault(compute, Subject(who, stored, on, precision, compute, path, made.size))
        subjects += found.values()


def _add_programs(
    who: str, bundle: Bundle, on: str, program: Path, subjects: list[Subject], skipped: list[Skipped]
) -> None:
    if who != "teacher":
        skipped.append(Skipped(who, on, "program", "only a teacher has PyTorch programs"))
        return
    try:
        programs = programs_beside(program, tuple(bundle.manifest.graphs))
        with Programs(bundle, programs, on) as model:
            compute = model.ran_on["image"].compute
    except PupilError as error:
        skipped.append(Skipped(who, on, "any", str(error)))
        return
    size = sum(path.stat().st_size for path in programs.values())
    subjects.append(Subject(who, "pt2", on, None, compute, bundle.path, size, programs))
