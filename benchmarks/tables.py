"""The tables of a report as rows of text, header first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.figures import main_cells
from benchmarks.stats import reaches

Row = tuple[str, ...]
Report = Mapping[str, Any]


def main_rows(report: Report) -> list[Row]:
    """The one table: teacher and student on each target."""
    rows: list[Row] = [
        (
            "target",
            "model",
            "computed in",
            "top-1",
            "top-1 lost",
            "answers",
            "answers lost",
            "p50 ms",
            "speed-up",
            "against default",
            "size",
            "memory",
        )
    ]
    fast = {(pair["target"], pair["against"]): f"{interval(pair['speedup'], 2)}x" for pair in report["speedups"]}
    for target in report["targets"]:
        for who, row in main_cells(report, target).items():
            accuracy = row["accuracy"]
            speeds = [fast.get((target, against), "") if who == "student" else "" for against in ("f32", "default")]
            rows.append(
                (
                    target,
                    f"{who} {row['variant']}",
                    row["compute"],
                    percent(accuracy["top1"]),
                    points(accuracy.get("top1_drop")),
                    percent(accuracy.get("answers")),
                    points(accuracy.get("answers_drop")),
                    f"{row['single_stream_ms']['p50']['value']:.3g}",
                    *speeds,
                    megabytes(row["bytes"]),
                    f"{row['fresh']['peak_mb']['value']:.0f} MB",
                )
            )
    return rows


def narrow_rows(report: Report) -> list[Row]:
    """The same for 80 columns: several lines in a cell."""
    rows: list[Row] = [("", "top-1", "answers", "p50,\nspeed-up", "size,\nmemory")]
    for target, model, compute, top1, lost, answers, asked, ms, speed, default, size, memory in main_rows(report)[1:]:
        rows.append(
            (
                f"{model}\n{target}\n{compute}",
                *(lines(right, gone and f"lost {gone}") for right, gone in ((top1, lost), (answers, asked))),
                lines(f"{ms} ms", speed, default and f"default {default}"),
                lines(size, memory),
            )
        )
    return rows


def lines(*texts: str) -> str:
    """Texts for one cell of a narrow table: one below the other, an interval on a line of its own."""
    return "\n".join(text.replace(" [", "\n[") for text in texts if text)


def accuracy_rows(report: Report) -> list[Row]:
    """Every cell through the deployed graphs."""
    rows: list[Row] = [
        (
            "cell",
            "image, text, fusion computed in",
            "top-1",
            "top-1 lost",
            "top-1, typed in",
            "mAP, 0..1",
            "mAP lost, 0..1",
            "answers",
            "answers lost",
        )
    ]
    for row in report["cells"]:
        a = row["accuracy"]
        computed = ", ".join(ran.split()[-1] for ran in row["towers"].values())
        scores = (percent(a["top1"]), points(a.get("top1_drop")), percent(a["top1_by_text"]), interval(a["map"], 3))
        asked = (percent(a.get("answers")), points(a.get("answers_drop")))
        rows.append((name(row), computed, *scores, interval(a["map_drop"], 3) if "map_drop" in a else "", *asked))
    return rows


def latency_rows(report: Report) -> list[Row]:
    """Single-stream and offline, image path."""
    rows: list[Row] = [("cell", "p50 ms", "p90 ms", "p99 ms", "n", "offline images/s", "by")]
    for row in report["cells"]:
        stream, offline = row["single_stream_ms"], row["offline"]
        rate = offline["images_per_second"][offline["best"]]
        times = [
            interval(stream[f"p{p}"], 3)
            if reaches(p / 100, stream[f"p{p}"]["n"])
            else f"{stream[f'p{p}']['value']:.3f}"
            for p in (50, 90, 99)
        ]
        rows.append((name(row), *times, str(stream["p50"]["n"]), interval(rate, 0), offline["best"]))
    return rows


def stage_rows(report: Report) -> list[Row]:
    """Medians of each stage and end to end, milliseconds."""
    parts = [("stages_ms", stage) for stage in ("decode", "resize", "image", "text", "fuse")]
    parts += [("end_to_end_ms", task) for task in ("classify", "ask")]
    rows: list[Row] = [("cell", *(stage for _, stage in parts[:5]), "file to label", "file to answer")]
    for row in report["cells"]:
        found = [row[group].get(part) for group, part in parts]
        rows.append((name(row), *(f"{figure['value']:.3f}" if figure else "" for figure in found)))
    return rows


def fresh_rows(report: Report) -> list[Row]:
    """What a new process pays."""
    rows: list[Row] = [("cell", "load ms", "first call ms", "memory MB", "of it before the load", "size on disk")]
    for row in report["cells"]:
        fresh = row["fresh"]
        figures = (fresh[key]["value"] for key in ("load_ms", "first_call_ms", "peak_mb", "before_mb"))
        load, first, peak, before = figures
        rows.append((name(row), f"{load:.0f}", f"{first:.2f}", f"{peak:.0f}", f"{before:.0f}", megabytes(row["bytes"])))
    return rows


def speedup_rows(report: Report) -> list[Row]:
    """Paired, in turn."""
    said = {
        "f32": "teacher fp32 in f32",
        "default": "teacher fp32 as the engine likes it",
        "eager": "teacher in PyTorch, operator by operator",
        "own_f32": "its own fp32 in f32",
    }
    rows: list[Row] = [("target", "student", "against", "student ms", "other ms", "speed-up", "turns")]
    for pair in report["speedups"]:
        student = f"{pair['fast']['variant']} {pair['fast']['compute']}"
        times = (f"{pair[key]['value']:.3f}" for key in ("fast_ms", "slow_ms"))
        against = f"{said[pair['against']]} ({pair['slow']['compute']})"
        ratio = f"{interval(pair['speedup'], 2)}x"
        rows.append((pair["target"], student, against, *times, ratio, str(pair["speedup"]["n"])))
    return rows


def layer_rows(report: Report) -> list[Row]:
    """Microseconds of ours."""
    rows: list[Row] = [("target", "student", "embed_images adds, us", "1,000 labels add to one, us", "turns")]
    for cost in report["layer"]:
        figures = (interval(cost[name], 1) for name in ("embed_images_us", "labels_us"))
        rows.append((cost["target"], f"{cost['variant']} {cost['compute']}", *figures, str(cost["labels_us"]["n"])))
    return rows


def baseline_rows(report: Report) -> list[Row]:
    """Without a model."""
    base = report["baselines"]
    rows: list[Row] = [("without a model", "right"), ("zero-shot, by chance", f"{100 * base['chance_top1']:.2f} %")]
    rows.append(("zero-shot, always the largest class", percent(base["largest_class_top1"])))
    if "question_only" in base:
        rows.append(("questions, by chance", f"{100 * base['chance_answers']:.2f} %"))
        rows.append(("questions, always the commonest answer", percent(base["largest_answer"])))
        rows.append(("questions, the commonest answer to each question", percent(base["question_only"])))
    return rows


def name(row: Mapping[str, Any]) -> str:
    """A cell's name: `student int8 ov:cpu int8+bf16`."""
    return f"{row['model']} {row['variant']} {row['target']} {row['compute']}"


def grid(rows: Sequence[Row]) -> str:
    """A markdown table; text that holds a bar of its own is kept in its cell."""
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def aligned(rows: Sequence[Row]) -> str:
    """A table for a terminal without rich."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def interval(figure: Mapping[str, float], digits: int) -> str:
    """`1.23 [1.10, 1.40]`."""
    return f"{figure['value']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def percent(figure: Mapping[str, float] | None) -> str:
    """`98.50 % [97.40, 99.10]`, or nothing."""
    if figure is None:
        return ""
    return f"{100 * figure['value']:.2f} % [{100 * figure['low']:.2f}, {100 * figure['high']:.2f}]"


def points(figure: Mapping[str, float] | None) -> str:
    """Points of accuracy lost, or nothing: `0.25 [-0.40, 0.90]`."""
    return "" if figure is None else interval(figure, 2)


def megabytes(count: float) -> str:
    """Bytes as `1.23 MB` (1e6)."""
    return f"{count / 1e6:.2f} MB"
