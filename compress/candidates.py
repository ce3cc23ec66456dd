"""int8 graphs of a tower: every quantizer makes one, all are measured on every CPU engine, one is kept."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from compress.quantizers import Job, quantizer
from runtimes import Array, RecipeError

Feeds = list[dict[str, Array]]

CLEARLY = 0.9  # of another's time


def choose(
    tower: str,
    source: Path,
    feeds: tuple[Feeds, Feeds],
    quantizers: Sequence[str],
    distance: float,
    folder: Path,
) -> tuple[Path, dict[str, float | str]]:
    """The graph in `folder` that is kept of those that `quantizers` make of the float graph `source`, see `pick`; and
    what was measured. `feeds`: to calibrate with, and to compare on.

    Raises RecipeError if a quantizer leaves weights in float, and what engines and quantizers raise.
    """
    made = _make(tower, source, feeds[0], quantizers, folder)
    measured = measure_candidates(source, made, feeds[1])
    best = pick({name: (m["distance"], m["slowness"]) for name, m in measured.items()}, distance)
    for name, path in made.items():
        if name != best:
            path.unlink()
    metrics: dict[str, float | str] = {f"{tower}.chosen": best}
    for name, figures in measured.items():
        metrics |= {f"{tower}.{name}.{key}": value for key, value in figures.items()}
    return made[best], metrics


def _make(tower: str, source: Path, feeds: Feeds, quantizers: Sequence[str], folder: Path) -> dict[str, Path]:
    from compress.progress import bar

    made: dict[str, Path] = {}
    with bar(f"quantize: {tower}", len(quantizers)) as tick:
        for name in quantizers:
            made[name] = folder / f"{tower}.{name}.onnx"
            make(tower, source, feeds, name, made[name])
            tick(name)
    return made


def make(tower: str, source: Path, feeds: Feeds, name: str, out: Path) -> None:
    """Write to `out` what the quantizer `name` makes of the float graph `source`. Raises as `choose` does."""
    import onnx

    from compress.export import save_graph
    from compress.graph import float_weight_quantizers, quantize_embeddings

    keep, attention = float_nodes(tower, source)
    quantizer(name).quantize(Job(source, out, feeds, keep, attention))
    candidate = onnx.load(str(out))
    quantize_embeddings(candidate)
    left = float_weight_quantizers(candidate)
    if left:
        raise RecipeError(
            f"{name} left float weights behind {len(left)} QuantizeLinear nodes of {tower}; leave it out of "
            "quantize.quantizers"
        )
    save_graph(candidate, out)


def float_nodes(tower: str, source: Path) -> tuple[tuple[str, ...], bool]:
    """Names of the nodes of a float graph that stay so, and whether it is a transformer."""
    import onnx

    from compress.graph import float_prefix

    model = onnx.load(str(source))
    attention = any(node.op_type == "Softmax" for node in model.graph.node)
    if tower == "image":
        return float_prefix(model), attention
    # Lookup tables are ours to quantise, so that no engine unpacks a whole table for a few rows.
    return tuple(node.name for node in model.graph.node if node.op_type == "Gather"), attention


def pick(measured: Mapping[str, tuple[float, float]], distance: float) -> str:
    """The candidate nearest to float, unless another within `distance` is clearly faster (by a tenth).

    `measured`: name -> (mean distance, slowness). Without the margin the clock's noise would decide, and
    two runs of one recipe would ship different graphs.
    """
    nearest = min(measured, key=lambda name: measured[name][0])
    limit = CLEARLY * measured[nearest][1]
    faster = {name: slow for name, (far, slow) in measured.items() if far <= distance and slow <= limit}
    return min(faster, key=faster.__getitem__) if faster else nearest


def measure_candidates(source: Path, made: Mapping[str, Path], feeds: Feeds) -> dict[str, dict[str, float]]:
    """Per candidate: mean `distance` of its outputs from the float graph's (the worst output and engine; as in
    `sdk.golden.output_error`, a row at a time), median `ms.<target>`, and `slowness`, the geometric mean over engines
    of the median ratio of its time to the first candidate's, in turn."""
    import numpy as np

    import runtimes
    from benchmarks.timing import in_turn
    from compress.engines import cpu_targets
    from sdk.golden import output_error

    def outputs(session: runtimes.Session) -> Feeds:
        return [session.run(feed) for feed in feeds]

    def far(got: Feeds, wanted: Feeds) -> float:
        pairs = zip(got, wanted, strict=True)
        rows = [[output_error(port, one[port], two[port]) for port in two] for one, two in pairs]
        return float(np.mean(rows, axis=0).max())

    result: dict[str, dict[str, float]] = {name: {"distance": 0.0, "slowness": 0.0} for name in made}
    targets = cpu_targets()
    for target in targets:
        with contextlib.ExitStack() as stack:
            wanted = outputs(stack.enter_context(runtimes.open_session(target, source, precision="f32")))
            sessions = {n: stack.enter_context(runtimes.open_session(target, path)) for n, path in made.items()}
            calls = {name: functools.partial(session.run, feeds[0]) for name, session in sessions.items()}
            times = in_turn(calls, min_seconds=0.5 * len(calls))
            first = next(iter(times.values()))
            for name, session in sessions.items():
                result[name]["distance"] = max(result[name]["distance"], far(outputs(session), wanted))
                result[name][f"ms.{target}"] = float(np.median(times[name]))
                result[name]["slowness"] += float(np.log(np.median(times[name] / first))) / len(targets)
    for figures in result.values():
        figures["slowness"] = float(np.exp(figures["slowness"]))
    return result
