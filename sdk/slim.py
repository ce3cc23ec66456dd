"""What one target needs, out of the maker's bundle that holds everything."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from runtimes import BundleError, Unavailable, parse_target
from sdk.bundle import MANIFEST, Bundle
from sdk.choose import PRECISIONS, fits
from sdk.manifest import TOWERS
from sdk.writer import Source, npz_bytes, write_bundle

# What needs the text tower: names in golden.npz, and tasks. Questions are texts, so the fusion tower goes with it.
_TEXT_TOWERS = frozenset({"text", "fusion"})
_TEXT_ARRAYS = ("texts", "feed/text/", "feed/fusion/")
_TEXT_TASKS = frozenset({"embed_texts", "ask"})


def slim(bundle: Bundle, target: str, out: Path, *, text: bool = True, precision: str | None = None) -> Bundle:
    """Write a bundle with one variant per tower for `target`: the smallest, or the one of `precision`.

    Without `text` the text tower, the tokenizer and the fusion tower stay behind; the label bank stays, so known labels
    still work, and so does searching with a frame.
    Raises Unavailable when the bundle holds nothing for the target, BundleError when `out` exists or lies in a bundle.
    """
    if precision not in {None, *PRECISIONS}:
        raise Unavailable(f"precision={precision!r} is not known; choose one of: {', '.join(PRECISIONS)}")
    runtime = parse_target(target).runtime
    inside = next((folder for folder in out.absolute().parents if (folder / MANIFEST).is_file()), None)
    if inside is not None:
        raise BundleError(f"{out} lies inside the bundle {inside}, which is never written to; choose another folder")
    towers = [t for t in TOWERS if t in bundle.manifest.graphs and (text or t not in _TEXT_TOWERS)]
    kept = {tower: _pick(bundle, tower, runtime, precision) for tower in towers}
    manifest = dataclasses.replace(
        bundle.manifest,
        graphs={tower: {variant: bundle.graph(tower, variant)} for tower, variant in kept.items()},
        tolerance={t: {v: bundle.manifest.tolerance.get(t, {}).get(v, {})} for t, v in kept.items()},
        text=bundle.manifest.text if "text" in kept else None,
        fusion=bundle.manifest.fusion if "fusion" in kept else None,
        tasks=tuple(task for task in bundle.manifest.tasks if "text" in kept or task not in _TEXT_TASKS),
        provenance={**bundle.manifest.provenance, "slimmed_for": target, "slimmed_from": bundle.hash},
    )
    used = [f for variants in manifest.graphs.values() for g in variants.values() for f in (g.file, *g.external)]
    used += [manifest.text.tokenizer] if manifest.text else []
    used += [manifest.labels.vectors] if manifest.labels else []
    used += [manifest.card] if manifest.card is not None else []
    sources: dict[str, Source] = {name: bundle.file(name) for name in used}
    outputs = tuple(f"out/{tower}/{variant}/" for tower, variant in kept.items())
    sources[manifest.golden] = npz_bytes(
        {
            name: array
            for name, array in bundle.golden.items()
            if (name.startswith(outputs) or not name.startswith("out/"))
            and ("text" in kept or not name.startswith(_TEXT_ARRAYS))
        }
    )
    return write_bundle(out, manifest, sources)


def _pick(bundle: Bundle, tower: str, runtime: str, precision: str | None) -> str:
    fitting = {
        bundle.weight(graph): name
        for name, graph in bundle.variants(tower).items()
        if runtime in graph.families and fits(precision, graph)
    }
    if not fitting:
        families = sorted({f for g in bundle.variants(tower).values() for f in g.families})
        wanted = f"{precision} {tower}" if precision else tower
        raise Unavailable(f"{bundle.path} holds no {wanted} graph for {runtime!r}; it holds: {', '.join(families)}")
    return fitting[min(fitting)]
