"""Which engines bundles are made for, and which of them this machine has: the one place that says so."""

from __future__ import annotations

import runtimes
from runtimes import Target, Unavailable

# A float or Q/DQ graph of opset 17 runs on these. A variant for others says so in its name: `int8-trt`, `fp16-trt`.
FAMILIES = ("ov", "ort")
# Runtimes that take the float graph as well, but compute Q/DQ in their own way.
FLOAT_ONLY = ("trt",)


def parse_variant(name: str) -> tuple[str, tuple[str, ...]]:
    """`stored[-family]` to (precision of the stored weights, families): `int8` is for all, `int8-trt` for one."""
    stored, _, family = name.partition("-")
    if family:
        return stored, (family,)
    return stored, (*FAMILIES, *FLOAT_ONLY) if stored == "fp32" else FAMILIES


def cpu_targets() -> tuple[Target, ...]:
    """CPU targets here that bundles are made for, in the order of FAMILIES: figures name the first one.

    Raises Unavailable when there is none.
    """
    here = runtimes.targets()
    found = tuple(t for family in FAMILIES for t in here if t.runtime == family and t.device == "cpu")
    if not found:
        raise Unavailable("measuring and packing need an engine; run: pip install 'edge-pupil[openvino]'")
    return found
