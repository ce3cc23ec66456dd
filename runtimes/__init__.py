"""Engines behind one seam: a graph file and a device in, arrays in, arrays out. Nothing else.

Every module of this folder whose name has no leading underscore **is** a runtime, found by its file name; there is no
registry. A runtime module has

    EXTRA                                              the pip extra that installs its engine
    PACKAGES                                           the packages that the engine comes in, for their versions
    devices() -> tuple[str, ...]                       the devices this machine has ("cpu", "gpu.1"); raises Unavailable
    open_session(path, device, *, batch, precision, cache_dir, prefer) -> Session; raises Unavailable
    BUILDS                                             True where opening compiles for long unless `cache_dir` holds the
                                                       result; its open_session then takes `progress` as well
    OPENS                                              the ending of the files it opens; ".onnx" where it does not say.
                                                       With another, `write_probe(path)` makes the doctor's graph

and imports its engine inside functions, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from runtimes._errors import (
    BundleError,
    FeedError,
    GateFailed,
    PupilError,
    RecipeError,
    Unavailable,
    VerifyError,
)
from runtimes._session import Array, Port, Progress, Session, check_feeds
from runtimes._target import Target, parse_target

__all__ = [
    "Array",
    "BundleError",
    "FeedError",
    "GateFailed",
    "Port",
    "Progress",
    "PupilError",
    "RecipeError",
    "Session",
    "Target",
    "Unavailable",
    "VerifyError",
    "builds",
    "check_feeds",
    "devices",
    "names",
    "open_session",
    "opens",
    "parse_target",
    "targets",
    "versions",
]

_ONNX = ".onnx"


def names() -> tuple[str, ...]:
    """Names of the runtimes in this folder, sorted: every module without a leading underscore."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def _module(runtime: str) -> ModuleType:
    if runtime not in names():
        raise Unavailable(f"there is no runtime {runtime!r}; those that exist: {', '.join(names())}")
    return importlib.import_module(f"runtimes.{runtime}")


def devices(runtime: str) -> tuple[str, ...]:
    """Devices of one runtime on this machine, as the part of a target after the colon.

    Raises Unavailable when the engine is not installed (the text names the pip extra) or the runtime is unknown.
    """
    found: tuple[str, ...] = _module(runtime).devices()
    return found


def opens(runtime: str) -> str:
    """The ending of the files that a runtime opens, such as ".onnx". Raises Unavailable for an unknown runtime."""
    ending: str = getattr(_module(runtime), "OPENS", _ONNX)
    return ending


def builds(runtime: str) -> bool:
    """Whether opening a graph there can take minutes: another target may serve meanwhile. Raises Unavailable for an
    unknown runtime."""
    return bool(getattr(_module(runtime), "BUILDS", False))


def versions(runtime: str) -> dict[str, str]:
    """Installed packages of one runtime's engine -> version, read without importing it; none where it is not installed.

    Raises Unavailable for an unknown runtime.
    """
    from importlib import metadata  # costs 20 ms, which only those pay who ask

    found = {}
    for package in _module(runtime).PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def targets(*only: str) -> tuple[Target, ...]:
    """Targets that open ONNX, whose engine is installed and whose device is present; `pt` is none, see runtimes/pt.py.

    `only`: of these runtimes, or of all; asking a runtime loads its engine. Opening one may still fail: see the doctor.
    """
    found = []
    for runtime in only or names():
        try:
            if opens(runtime) == _ONNX:
                found += [parse_target(f"{runtime}:{device}") for device in devices(runtime)]
        except Unavailable:
            continue
    return tuple(found)


def open_session(
    target: Target | str,
    path: Path | str,
    *,
    batch: int | None = 1,
    precision: str | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    prefer: str = "latency",
) -> Session:
    """Open the graph at `path` on `target`: an ONNX file, or what else the runtime opens.

    `batch` fixes the first dimension of every input in the engine (a fixed shape is up to 28 % faster in OpenVINO);
    None leaves it free. `precision` asks for the arithmetic of the float layers: "f32", "bf16", "f16"; None is the
    engine's own default, which is bf16 for OpenVINO on CPUs that have it. `cache_dir` is where an engine that compiles
    may keep what it made on this device; None compiles anew each time. `prefer`: "latency" gives one call all cores,
    "throughput" suits the session to many threads that call at once. `progress` is told how far a runtime that
    `builds` is, and may stop it; others do not call it.

    Raises Unavailable when the engine, the device, that precision or the file is not here, or the file is of another
    kind than this runtime opens. Never falls back silently.
    """
    wanted = parse_target(target) if isinstance(target, str) else target
    if wanted.runtime not in names():
        here = ", ".join(map(str, targets())) or "none: pip install 'edge-pupil[openvino]'"
        raise Unavailable(f"no runtime {wanted.runtime!r} for target {wanted}; targets here: {here}")
    graph = Path(path)
    if not graph.is_file():
        raise Unavailable(f"there is no graph file {graph}; make or copy it again")
    if graph.suffix != opens(wanted.runtime):
        raise Unavailable(f"{wanted} opens files that end in {opens(wanted.runtime)}, and {graph} does not; give such")
    told = {"progress": progress} if builds(wanted.runtime) else {}
    session: Session = _module(wanted.runtime).open_session(
        graph, wanted.place, batch=batch, precision=precision, cache_dir=cache_dir, prefer=prefer, **told
    )
    return session
