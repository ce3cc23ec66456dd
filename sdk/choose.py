"""Which target and variant a tower runs on. For now: the first that opens and answers its golden inputs rightly.

Order is never a judgement about engines in general: it is the order in which the maker measured them for this very
graph (`families`), and smaller files before larger ones. Choosing by measuring on the device comes behind this seam.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import runtimes
from runtimes import PupilError, Session, Target, Unavailable, VerifyError, parse_target
from sdk.bundle import Bundle
from sdk.golden import replay

# What an app may ask for -> (precision of the stored weights, arithmetic asked of the engine).
PRECISIONS = {"fp32": ("fp32", "f32"), "bf16": ("fp32", "bf16"), "fp16": ("fp32", "f16"), "int8": ("int8", None)}


@dataclass(frozen=True)
class Tried:
    """A candidate that was not taken, and why."""

    target: str
    variant: str
    reason: str


@dataclass(frozen=True)
class RanOn:
    """What one tower runs on. `compute` is the arithmetic the engine reports, such as `int8+bf16`."""

    target: str
    variant: str
    compute: str
    why: str
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True)
class Wish:
    """What the app asked of `load`."""

    on: str | None = None
    precision: str | None = None
    policy: str = "strict"
    cache_dir: Path | None = None


def open_tower(bundle: Bundle, tower: str, wish: Wish) -> tuple[Session, RanOn]:
    """Open a tower on the first candidate that passes its golden inputs.

    Raises Unavailable when nothing could be opened, VerifyError when something opened but answered wrongly.
    """
    tried: list[Tried] = []
    wrong = False
    for target, variant in _candidates(bundle, tower, wish):
        try:
            session, ran_on = _open_checked(bundle, tower, variant, target, wish)
        except (Unavailable, VerifyError) as error:
            wrong |= isinstance(error, VerifyError)
            tried.append(Tried(str(target), variant, str(error)))
            continue
        return session, RanOn(*ran_on, tried=tuple(tried))
    if not tried:
        raise Unavailable(_nothing(bundle, tower, wish))
    reasons = "; ".join(f"{t.target} {t.variant}: {t.reason}" for t in tried)
    kind = VerifyError if wrong else Unavailable
    raise kind(f"no target can run the {tower} tower of {bundle.path}: {reasons}")


def _candidates(bundle: Bundle, tower: str, wish: Wish) -> Iterator[tuple[Target, str]]:
    variants = bundle.variants(tower)
    stored = PRECISIONS[wish.precision][0] if wish.precision else None
    by_size = sorted(variants, key=lambda name: bundle.weight(variants[name]))
    names = [name for name in by_size if stored in {None, variants[name].stored}]
    if wish.on is not None:
        wanted = parse_target(wish.on)
        yield from ((wanted, name) for name in names if wanted.runtime in variants[name].families)
        if wish.policy == "strict":
            return
    here = runtimes.targets()
    for name in names:
        for family in variants[name].families:
            yield from ((t, name) for t in here if t.runtime == family and str(t) != wish.on)


def _open_checked(
    bundle: Bundle, tower: str, variant: str, target: Target, wish: Wish
) -> tuple[Session, tuple[str, str, str, str]]:
    precision = PRECISIONS[wish.precision][1] if wish.precision else None
    path = bundle.file(bundle.graph(tower, variant).file)
    bundle.check_unchanged(bundle.graph(tower, variant))
    session = runtimes.open_session(target, path, batch=1, precision=precision, cache_dir=wish.cache_dir)
    try:
        error, tolerance = replay(session, bundle, tower, variant, quick=True)
        if not error <= tolerance:
            raise VerifyError(
                f"answers leave the golden outputs by {error:.2g} (at most {tolerance:g}, computing in "
                f"{session.compute}); run: python -m sdk verify {bundle.path}"
            )
    except PupilError:
        session.close()
        raise
    chosen = "asked for" if str(target) == wish.on else "first that opened"
    if wish.on not in {None, str(target)}:
        chosen += f", as {wish.on} did not"
    why = f"{chosen}; golden error {error:.1e} of {tolerance:g}"
    return session, (str(target), variant, session.compute, why)


def _nothing(bundle: Bundle, tower: str, wish: Wish) -> str:
    here = ", ".join(map(str, runtimes.targets())) or "none; run: pip install 'edge-pupil[openvino]'"
    has = ", ".join(f"{name} for {'/'.join(g.families)}" for name, g in bundle.variants(tower).items())
    asked = " ".join(f"{k}={v!r}" for k, v in (("on", wish.on), ("precision", wish.precision)) if v is not None)
    asked = asked or "what is here"
    return f"{bundle.path} has nothing to run its {tower} tower with {asked}; it has: {has}; here: {here}"
