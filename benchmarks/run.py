"""`python benchmarks/run.py --teacher DIR/teacher --student DIR/student --eval DIR/eval`: what was lost and gained.

Measures both bundles on every target that opens, and writes DIR/benchmark (report.md, report.json, samples.jsonl and a
picture). Works from a clone that is not installed, given the packages. Exit code 1 when a --require is missed, 2 for
bad input, 130 when interrupted; then nothing is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:
    # From a clone nothing is installed; and this folder's own names are no top-level ones.
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent), *(each for each in sys.path if Path(each).resolve() != here)]

from benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main())
