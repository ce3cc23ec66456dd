"""`python -m benchmarks.service BUNDLE`: throughput, start, memory and idleness of a bundle in service, held to bars.

Prints a table; `--readme FILE` puts it there. Exit code 1 when a bar is missed, 2 for bad input. Run it on a machine
that does nothing else: only the first two figures are ratios, which other work spoils less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NoReturn

from benchmarks.readme import fill
from benchmarks.start import import_ratio, started
from benchmarks.throughput import ON, throughput
from benchmarks.timing import machine, versions
from runtimes import PupilError, RecipeError
from sdk.bundle import open_bundle
from sdk.places import find
from sdk.slim import slim

MARKS = ("<!-- service -->\n", "<!-- /service -->")
_ENGINES = ("openvino", "onnxruntime", "numpy", "opencv-python-headless")


@dataclass(frozen=True)
class Line:
    """One figure and its bar: `value` must be at least (or, without `least`, at most) `bar`."""

    what: str
    value: float
    shown: str
    bar: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether it holds; a NaN does not."""
        return self.value >= self.bar if self.least else self.value <= self.bar

    def row(self) -> str:
        """As a row of a table in Markdown."""
        sign = "at least" if self.least else "at most"
        return f"| {self.what} | {self.shown} | {sign} {self.bar:g} | {'yes' if self.met else '**no**'} |"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; run: python -m benchmarks.service --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = _Parser(prog="python -m benchmarks.service", description="Throughput, start and idle, held to bars.")
    parser.add_argument("bundle", help="its folder, or a bare name")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each throughput clock runs")
    parser.add_argument("--runs", type=int, default=7, help="rounds, and fresh processes, per figure")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds without a frame")
    parser.add_argument("--readme", type=Path, help="a file in which the table replaces what stands between the marks")
    try:
        asked = parser.parse_args(arguments)
        if asked.runs < 1 or not asked.seconds > 0 or not asked.idle > 0:
            parser.error("--runs, --seconds and --idle must be above 0")
        lines = []
        for line in _measured(Path(find(asked.bundle)), asked):
            print(line.row(), flush=True)
            lines.append(line)
        if asked.readme is not None:
            fill(asked.readme, MARKS, table(lines, asked.bundle))
    except PupilError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0 if all(line.met for line in lines) else 1


def table(lines: Sequence[Line], bundle: str) -> str:
    """The lines in Markdown, with what they were measured on."""
    engines = ", ".join(f"{name} {number}" for name, number in versions(*_ENGINES).items())
    facts = machine()
    where = f"`{Path(bundle).name}` on {facts['cpu']}, {facts['cores']} cores"
    head = f"| {where} | measured | bar | met |\n|---|---|---|---|\n"
    return "".join([head, *(f"{line.row()}\n" for line in lines), f"\nWith {engines}.\n"])


def _measured(bundle: Path, asked: argparse.Namespace) -> Iterator[Line]:
    ours, theirs, ratio = throughput(bundle, asked.seconds, asked.runs)
    yield Line(
        "frames from many threads, against OpenVINO's benchmark_app",
        ratio.value,
        f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] ({ours.value:.0f} of {theirs.value:.0f} a second)",
        0.95,
        least=True,
    )
    imports = import_ratio(asked.runs)
    yield Line(
        "`import sdk`, against `import numpy, cv2`",
        imports.value,
        f"{imports.value:.2f} [{imports.low:.2f}, {imports.high:.2f}]",
        1.5,
    )
    with tempfile.TemporaryDirectory(prefix="pupil-service-") as folder:
        cache = Path(folder) / "cache"
        started(bundle, cache)  # measures, and warms the cache
        starts = [started(bundle, cache) for _ in range(asked.runs)]
        first = median(each.answer_s for each in starts)
        yield Line("load to first answer, warm cache, s", first, f"{first:.3f} ({starts[0].on})", 0.4)
        small = slim(open_bundle(bundle), ON, Path(folder) / "small", text=False)
        held = started(small.path, cache, on=ON, idle=asked.idle)
        yield Line("resident, OpenVINO, no text tower, MB", held.resident_mb, f"{held.resident_mb:.0f}", 200)
        idle = started(bundle, Path(folder) / "cold", idle=asked.idle)  # it has just measured everything
        yield Line(
            f"processor time in {idle.idle_of:g} s idle, s", idle.idle_s, f"{idle.idle_s:.3f}", 0.01 * idle.idle_of
        )


if __name__ == "__main__":
    sys.exit(main())
