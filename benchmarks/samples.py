"""Raw samples, one JSON object per line, so that every figure of a report can be made again, or made otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.plan import Subject


@dataclass
class Samples:
    """What was measured so far. `machine`: the name by which lines refer to the machine of the first line."""

    machine: str
    facts: Mapping[str, Any]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, subject: Subject, metric: str, unit: str, values: NDArray[Any], **more: object
    ) -> NDArray[np.float64]:
        """Keep samples (n,) of one metric of one cell, in the order in which they were taken; returns them."""
        self.lines.append(
            {
                "model": subject.who,
                "variant": subject.stored,
                "target": subject.on,
                "compute": subject.compute,
                "metric": metric,
                "unit": unit,
                "machine": self.machine,
                **more,
                "samples": [round(value, 5) for value in np.asarray(values, np.float64).tolist()],
            }
        )
        return np.asarray(values, np.float64)

    def write(self, path: Path) -> None:
        """Write the machine's line and all others."""
        with path.open("w", encoding="utf-8") as file:
            for line in ({"machine": self.machine, **self.facts}, *self.lines):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
