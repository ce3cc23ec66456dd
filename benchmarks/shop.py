"""What a shop asks besides the label: coarse classes, product search, none of these. Only some sets have these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.metrics import Bools, Resampled
from benchmarks.stats import paired_drop, wilson

if TYPE_CHECKING:
    from benchmarks.evalset import EvalSet
    from benchmarks.evaluate import Result
    from sdk.bundle import Bundle
    from sdk.manifest import Figure

# Name -> what tables call it.
SHOP: Mapping[str, str] = {
    "coarse.accuracy": "coarse classes right",
    "search.photo_to_text_r1": "photo to text, recall@1",
    "search.photo_to_text_r5": "photo to text, recall@5",
    "search.text_to_photos_r1": "text to photos, recall@1",
    "search.text_to_photos_r5": "text to photos, recall@5",
    "search.map": "text to photos, mAP",
    "unknown.auroc": "none of these, AUROC",
    "unknown.accepted": "known photos accepted",
    "unknown.refused": "left-out photos refused",
}
# Of 0..1, lost likewise; the others are shares of samples, in per cent, lost in points.
IN_ONE = frozenset({"search.map", "unknown.auroc"})


def drop_name(name: str) -> str:
    """What a bar calls the loss of a figure of `SHOP`: `coarse.drop`, `search.map.drop`."""
    return "coarse.drop" if name == "coarse.accuracy" else f"{name}.drop"


def shop_figures(result: Result) -> dict[str, Figure]:
    """Name (of `SHOP`) -> figure, 0..1 with its 95 % interval; only what the set and the bundle have."""
    return {
        name: value.figure() if isinstance(value, Resampled) else wilson(value)
        for name, value in shop_values(result).items()
    }


def shop_drops(teacher: Result, student: Result) -> dict[str, Figure]:
    """Name -> what the student lost of what both have, paired: points (0..100), or of those `IN_ONE` 0..1."""
    before, after = shop_values(teacher), shop_values(student)
    found = {}
    for name in (name for name in before if name in after):
        one, two = before[name], after[name]
        if isinstance(one, Resampled) and isinstance(two, Resampled):
            found[name] = one.drop_to(two)
        elif not isinstance(one, Resampled) and not isinstance(two, Resampled):
            found[name] = paired_drop(one, two)
    return found


def as_json(figures: Mapping[str, Figure]) -> dict[str, dict[str, float]]:
    """Figures by name as a report holds them."""
    return {name: asdict(figure) for name, figure in figures.items()}


def shop_values(result: Result) -> dict[str, Bools | Resampled]:
    """Name -> what the figure is made of: bool per sample, or a statistic that can be drawn again."""
    search, unknown = result.search, result.unknown
    found: dict[str, Bools | Resampled | None] = {"coarse.accuracy": result.coarse}
    if search is not None:
        found |= {f"search.photo_to_text_r{k}": search.text_found_in(k) for k in (1, 5)}
        found |= {f"search.text_to_photos_r{k}": search.photos.found_in(k) for k in (1, 5)}
        found["search.map"] = search.photos
    if unknown is not None:
        found |= {
            "unknown.auroc": unknown,
            "unknown.accepted": unknown.accepted,
            "unknown.refused": unknown.refused,
        }
    return {name: value for name, value in found.items() if value is not None}


def why_not(name: str, bundles: Iterable[Bundle], evalset: EvalSet) -> str | None:
    """Why a figure of `SHOP`, or its loss, cannot be had of these bundles on this set; None when it can."""
    if name.startswith("coarse.") and not any(evalset.groups):
        return f"the labels of {evalset.name} have no groups"
    if name.startswith("search.") and not any(evalset.texts):
        return f"the labels of {evalset.name} have no texts"
    if name.startswith("unknown."):
        without = [bundle for bundle in bundles if bundle.manifest.unknown_threshold is None]
        if without and not (name.startswith("unknown.auroc") and any(evalset.groups)):
            return f"{without[0].path} has no unknown_threshold"
    return None
