"""Accuracy against latency: a point per model, variant and target, with its intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PICTURE = "accuracy_latency.png"
_MARKERS = {"teacher": "s", "student": "o"}
_GAP = 0.05  # between labels, as a share of the panel's width


def draw(report: Mapping[str, Any], path: Path) -> str | None:
    """Write the picture; colour by target, marker by model. Returns None, or why there is none."""
    return drawn(lambda: _save(report, path), path)


def drawn(save: Callable[[], None], path: Path) -> str | None:
    """Call `save`, which writes a picture to `path` with matplotlib. Returns None, or why there is none."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        return f"no picture: matplotlib does not import ({error}); run: pip install 'edge-pupil[bench]'"
    try:
        save()
    except (ValueError, RuntimeError) as error:  # its own trouble with a font or a text: the figures are there
        path.unlink(missing_ok=True)
        return f"no picture: matplotlib cannot draw it ({error}); the figures are in the tables"
    finally:
        pyplot.close("all")
    return None


def _save(report: Mapping[str, Any], path: Path) -> None:
    from matplotlib import pyplot

    panels = {"top1": "zero-shot top-1, %"}
    if any("answers" in row["accuracy"] for row in report["cells"]):
        panels["answers"] = "questions answered rightly, %"
    colours = {target: f"C{index}" for index, target in enumerate(report["targets"])}
    figure, axes = pyplot.subplots(1, len(panels), figsize=(7 * len(panels), 6.4), squeeze=False, layout="constrained")
    for axis, (metric, label) in zip(axes[0], panels.items(), strict=True):
        _panel(axis, [row for row in report["cells"] if metric in row["accuracy"]], metric, colours)
        axis.set(xlabel="single-stream time of the image path, ms (log): left is faster", ylabel=label)
    data = report["data"]
    quick = "quick look, " if report["quick"] else ""
    title = f"{report['student']['name']}: {quick}{data['images']} {data['split']} images, 95 % intervals"
    figure.suptitle(title, parse_math=False)  # a name may hold a $
    figure.legend(handles=_handles(colours), loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    figure.savefig(path, dpi=120)


def _panel(axis: Any, rows: Sequence[Mapping[str, Any]], metric: str, colours: Mapping[str, str]) -> None:
    axis.set_xscale("log")
    axis.grid(True, which="both", alpha=0.2)
    points = []
    for row in rows:
        time, right = row["single_stream_ms"]["p50"], row["accuracy"][metric]
        x, y, colour = time["value"], 100 * right["value"], colours[row["target"]]
        axis.errorbar(
            x,
            y,
            xerr=arms(time, 1),
            yerr=arms(right, 100),
            fmt=_MARKERS[row["model"]],
            color=colour,
            markeredgecolor="white",
            markersize=9,
            elinewidth=1,
            alpha=0.85,
        )
        points.append((x, y, f"{row['model']} {row['variant']} in {row['compute']}", colour))
    label_points(axis, points)


def label_points(axis: Any, points: list[tuple[float, float, str, str]]) -> None:
    """Numbers along the axis (x is logarithmic), and the points' names above the panel, moved apart, each with a line
    to its point: points of equal accuracy stand in a row. `points`: x, y, name and colour of each."""
    axis.margins(x=0.12, y=0.12)
    axis.xaxis.set_major_formatter("{x:g}")
    low, high = axis.get_xlim()
    axis.xaxis.set_minor_formatter("{x:g}" if high < 10 * low else "")  # numbers in between, where a decade is all
    points = sorted(points)
    left, right = np.log(axis.get_xlim())
    places = [(np.log(x) - left) / (right - left) for x, *_ in points]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + _GAP)
    shift = max(0.0, places[-1] - 0.97) if places else 0.0
    for index in range(len(places) - 1, -1, -1):  # back into the panel, from the right
        places[index] = min(places[index], 0.97 - _GAP * (len(places) - 1 - index)) if shift else places[index]
    for place, (x, y, text, colour) in zip(places, points, strict=True):
        axis.annotate(
            text,
            (x, y),
            (place, 1.03),
            textcoords="axes fraction",
            rotation=50,
            fontsize=8,
            color=colour,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35, "linewidth": 0.8, "relpos": (0, 0)},
        )


def arms(interval: Mapping[str, float], scale: float) -> list[list[float]]:
    """Lengths below and above the value; never below zero, which rounding can bring at the ends of a share."""
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    return [[scale * max(0.0, value - low)], [scale * max(0.0, high - value)]]


def _handles(colours: Mapping[str, str]) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color="grey", marker=m, linestyle="", label=who) for who, m in _MARKERS.items()]
    return handles + [Line2D([], [], color=colour, linewidth=4, label=target) for target, colour in colours.items()]
