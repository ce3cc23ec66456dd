"""Which targets and variants a tower could run on, and opening one so that it proves itself on its golden inputs.

Order is never a judgement about engines in general: it is the order in which the maker measured them for this very
graph (`families`), and smaller files before larger ones. It only says who is asked first; sdk/tower.py measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import runtimes
from runtimes import Progress, PupilError, Session, Target, VerifyError, parse_target
from sdk.bundle import Bundle
from sdk.golden import replay
from sdk.manifest import GraphSpec

# What an app may ask for -> the precisions of stored weights that give it, with the arithmetic asked of the engine;
# None: what the file says, as TensorRT computes it anyway.
PRECISIONS: Mapping[str, Mapping[str, str | None]] = {
    "fp32": {"fp32": "f32"},
    "bf16": {"fp32": "bf16"},
    "fp16": {"fp16": None, "fp32": "f16"},
    "int8": {"int8": None},
}
PREFERENCES = ("latency", "throughput", "memory")
POLICIES = ("strict", "degrade")


@dataclass(frozen=True)
class Wish:
    """What the app asked of `load`."""

    on: str | None = None
    precision: str | None = None
    prefer: str = "latency"
    policy: str = "strict"
    cache_dir: Path | None = None
    budget_s: float = 3.0
    budget_mb: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A variant of a tower on a target. Printed as in `ov:cpu int8`."""

    target: Target
    variant: str

    def __str__(self) -> str:
        return f"{self.target} {self.variant}"


@dataclass(frozen=True)
class Opened:
    """A candidate that opened and answered its golden inputs within `tolerance`; `error` is as sdk/golden.py says."""

    candidate: Candidate
    session: Session
    error: float
    tolerance: float

    @property
    def golden(self) -> str:
        """What it proved, in words."""
        return f"golden error {self.error:.1e} of {self.tolerance:g}"


@dataclass(frozen=True)
class Group:
    """Candidates of which the first that works is enough for now: variants on one target, or on the devices of one
    runtime. Which devices there are is asked when it is their turn, since that loads the engine."""

    variants: tuple[str, ...]
    where: str

    def candidates(self) -> Iterator[Candidate]:
        """All of them; none where the runtime's engine is not installed."""
        here = (parse_target(self.where),) if ":" in self.where else runtimes.targets(self.where)
        return (Candidate(target, variant) for variant in self.variants for target in here)


def groups(bundle: Bundle, tower: str, wish: Wish) -> list[Group]:
    """What may be tried for a tower, in order: with `on` that target, and others only if the policy is to degrade."""
    variants = bundle.variants(tower)
    by_size = sorted(variants, key=lambda name: bundle.weight(variants[name]))
    names = [name for name in by_size if fits(wish.precision, variants[name])]
    found = []
    if wish.on is not None:
        runtime = parse_target(wish.on).runtime
        fitting = tuple(name for name in names if runtime in variants[name].families)
        found = [Group(fitting, wish.on)] if fitting else []
    if wish.on is None or wish.policy == "degrade":
        found += [Group((name,), family) for name in names for family in variants[name].families]
    return found


def fits(precision: str | None, graph: GraphSpec) -> bool:
    """Whether a variant can be computed in what was asked for; None asks for nothing."""
    return precision is None or graph.stored in PRECISIONS[precision]


def open_candidate(
    bundle: Bundle, tower: str, candidate: Candidate, wish: Wish, progress: Progress | None = None
) -> Opened:
    """Open a candidate and replay golden inputs through it, which also warms it up. `progress`: see
    `runtimes.open_session`.

    Raises Unavailable when it does not open, VerifyError when its answers leave the tolerance, BundleError for files
    that changed.
    """
    graph = bundle.graph(tower, candidate.variant)
    precision = PRECISIONS[wish.precision].get(graph.stored) if wish.precision else None
    bundle.check_unchanged(graph)
    session = runtimes.open_session(
        candidate.target,
        bundle.file(graph.file),
        batch=1,
        precision=precision,
        cache_dir=wish.cache_dir,
        prefer=wish.prefer,
        progress=progress,
    )
    try:
        error, tolerance = replay(session, bundle, tower, candidate.variant, quick=True)
        if not error <= tolerance:
            raise VerifyError(
                f"answers leave the golden outputs by {error:.2g} (at most {tolerance:g}, computing in "
                f"{session.compute}); run: python -m sdk verify {bundle.path}"
            )
    except PupilError:
        session.close()
        raise
    return Opened(candidate, session, error, tolerance)


def nothing(bundle: Bundle, tower: str, wish: Wish) -> str:
    """What to say when there was no candidate at all."""
    here = ", ".join(map(str, runtimes.targets())) or "none; run: pip install 'edge-pupil[openvino]'"
    has = ", ".join(f"{name} for {'/'.join(g.families)}" for name, g in bundle.variants(tower).items())
    asked = " ".join(f"{k}={v!r}" for k, v in (("on", wish.on), ("precision", wish.precision)) if v is not None)
    asked = asked or "what is here"
    return f"{bundle.path} has nothing to run its {tower} tower with {asked}; it has: {has}; here: {here}"


def all_failed(bundle: Bundle, tower: str, tried: Sequence[object]) -> str:
    """What to say when every candidate failed; `tried` are objects with target, variant and reason."""
    reasons = "; ".join(f"{t.target} {t.variant}: {t.reason}" for t in tried)  # type: ignore[attr-defined]
    return f"no target can run the {tower} tower of {bundle.path}: {reasons}"
