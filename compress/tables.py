"""The tables of a report, as rows of text, header first: every figure that report.json holds, as people read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.tables import Row, grid, interval, megabytes, percent
from compress.photo_tables import class_main_row, shop_main_rows

__all__ = ["Row", "grid", "interval", "megabytes", "percent"]

# quantize.<tower>.<quantizer>.<figure>: dozens of numbers, which have a table of their own.
CANDIDATE = re.compile(r"quantize\.(?P<tower>\w+)\.(?P<quantizer>\w+)\.(?P<figure>distance|slowness|ms\..+)")


def main_rows(report: dict[str, Any]) -> list[Row]:
    """The main table, header first: teacher fp32 and student int8 on the first engine, and the change."""
    engine = report["size"]["slim_for"]
    cells = {(r["model"], r["precision"]): r for r in report["accuracy"] if r["target"] == engine}
    teacher, student = cells["teacher", "fp32"], cells["student", "int8"]
    size, fast = report["size"], [row for row in report["speed"] if row["target"] == engine]
    bytes_ = size["bytes"]
    params = {who: towers["image"] for who, towers in size["params"].items()}
    rows: list[Row] = [
        ("", "teacher fp32", "student int8", "change"),
        (
            f"zero-shot top-1 ({len_labels(report)}, n={teacher['top1']['n']})",
            *(percent(cell["top1"]) for cell in (teacher, student)),
            f"{0 - student['top1_drop']['value']:+.2f} points {gain(student['top1_drop'], 2)}",
        ),
        (
            f"text-to-image mAP (n={teacher['map']['n']})",
            *(interval(cell["map"], 3) for cell in (teacher, student)),
            f"{0 - student['map_drop']['value']:+.3f} {gain(student['map_drop'], 3)}",
        ),
        *_answer_row(report, teacher, student),
        *shop_main_rows(teacher, student),
        *class_main_row(report),
        (
            "image tower",
            *(f"{params[who] / 1e6:.2f} M params" for who in ("teacher", "student")),
            f"{params['teacher'] / params['student']:.1f}x fewer",
        ),
        (
            f"bundle (slim, {engine})",
            megabytes(bytes_["teacher_fp32"]),
            megabytes(bytes_["student_int8"]),
            f"{bytes_['teacher_fp32'] / bytes_['student_int8']:.1f}x smaller",
        ),
        ("bundle (no text tower)", "", megabytes(bytes_["student_int8_no_text"]), ""),
    ]
    for row in fast:
        rows.append(
            (
                f"one frame (teacher in {row['teacher_compute']})",
                milliseconds(row["teacher_ms"]),
                milliseconds(row["student_ms"]),
                f"{row['speedup']['value']:.2f}x faster [{row['speedup']['low']:.2f}, {row['speedup']['high']:.2f}]",
            )
        )
    return rows


def _answer_row(report: dict[str, Any], teacher: dict[str, Any], student: dict[str, Any]) -> list[Row]:
    """Questions answered rightly; no row for models that answer none."""
    if "answers" not in teacher or "answers" not in student:
        return []
    drop, guess = student["answers_drop"], report["baselines"].get("question_only")
    blind: list[Row] = [("guessed from the question alone", percent(guess), "", "")] if guess else []
    return [
        (
            f"questions right (n={teacher['answers']['n']})",
            *(percent(cell["answers"]) for cell in (teacher, student)),
            f"{0 - drop['value']:+.2f} points {gain(drop, 2)}",
        ),
        *blind,
    ]


def accuracy_rows(report: dict[str, Any]) -> list[Row]:
    """Accuracy through the SDK: model, precision and engine."""
    rows: list[Row] = [
        (
            "model",
            "precision",
            "target",
            "image, text computed in",
            "top-1",
            "lost",
            "top-1, labels typed in",
            "mAP",
            "questions right",
            "lost",
            "norm",
        )
    ]
    for row in report["accuracy"]:
        lost = interval(row["top1_drop"], 2) if "top1_drop" in row else ""
        computed = ", ".join(row["ran_on"][tower].split()[-1] for tower in ("image", "text"))
        answers = percent(row["answers"]) if "answers" in row else ""
        unanswered = interval(row["answers_drop"], 2) if "answers_drop" in row else ""
        scores = (
            percent(row["top1"]),
            lost,
            percent(row["top1_by_text"]),
            interval(row["map"], 4),
            answers,
            unanswered,
        )
        rows.append((row["model"], row["precision"], row["target"], computed, *scores, f"1 ± {row['norm_error']:.0e}"))
    return rows


def parity_rows(report: dict[str, Any]) -> list[Row]:
    """Whether the engines agree on the same file."""
    rows: list[Row] = [
        ("model", "precision", "engines", "lowest cosine, images", "lowest cosine, prompts", "same top-1", "n")
    ]
    for row in report["parity"]:
        cosines = (f"{row['cosine_min']:.6f}", f"{row['text_cosine_min']:.6f}")
        same = (*cosines, f"{row['same_top1']:.2%}", str(row["n"]))
        rows.append((row["model"], row["precision"], " and ".join(row["targets"]), *same))
    return rows


def speed_rows(report: dict[str, Any]) -> list[Row]:
    """Single-stream times of the image path, teacher and student."""
    rows: list[Row] = [("target", "teacher in", "student in", "teacher ms", "student ms", "speed-up", "pairs")]
    for row in report["speed"]:
        times = (milliseconds(row["teacher_ms"]), milliseconds(row["student_ms"]), interval(row["speedup"], 2))
        rows.append((row["target"], row["teacher_compute"], row["student_compute"], *times, str(row["speedup"]["n"])))
    return rows


def baseline_rows(report: dict[str, Any]) -> list[Row]:
    """What is right without any model."""
    base = report["baselines"]
    rows: list[Row] = [("baseline", "accuracy"), ("chance, zero-shot", f"{base['chance_top1']:.2%}")]
    rows.append(("always the largest class", percent(base["largest_class_top1"])))
    if "question_only" in base:
        n = base["question_only"]["n"]
        rows.append((f"question-only guess, {n} test questions", percent(base["question_only"])))
    return rows


def step_rows(report: dict[str, Any]) -> list[Row]:
    """What each step cost and measured; a figure with an interval is one entry, quantizers' figures are left out."""
    rows: list[Row] = [("step", "seconds", "measured")]
    for step, seconds in report["seconds"].items():
        prefix = f"{step}."
        found = {
            name.removeprefix(prefix): value
            for name, value in report["steps"].items()
            if name.startswith(prefix) and not CANDIDATE.fullmatch(name)
        }
        bounds = {f"{name}_{end}" for name in found for end in ("low", "high") if f"{name}_low" in found}
        rows.append((step, f"{seconds:.0f}", ", ".join(_entry(name, found) for name in found if name not in bounds)))
    return rows


def candidate_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """What each quantizer's graph of each tower measured, and which one was chosen; only a header if none did."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name, value in metrics.items():
        if match := CANDIDATE.fullmatch(name):
            found.setdefault((match["tower"], match["quantizer"]), {})[match["figure"]] = value
    timed = sorted({figure for figures in found.values() for figure in figures if figure.startswith("ms.")})
    rows: list[Row] = [
        ("tower", "quantizer", "chosen", "distance", *(f"{name.removeprefix('ms.')} ms" for name in timed))
    ]
    for (tower, quantizer), figures in found.items():
        chosen = "yes" if metrics.get(f"quantize.{tower}.chosen") == quantizer else ""
        cells = [_plain_number(figures.get(name)) for name in ("distance", *timed)]
        rows.append((tower, quantizer, chosen, *cells))
    return rows


def gain(drop: dict[str, float], digits: int) -> str:
    """The interval of a drop, seen as a gain: `[-0.40, +0.10]`."""
    return f"[{0 - drop['high']:+.{digits}f}, {0 - drop['low']:+.{digits}f}]"


def milliseconds(figure: dict[str, float]) -> str:
    """`1.234 ms`."""
    return f"{figure['value']:.3f} ms"


def len_labels(report: dict[str, Any]) -> str:
    """`24 prompts`, from chance."""
    return f"{round(1 / report['baselines']['chance_top1'])} prompts"


def _entry(name: str, found: Mapping[str, Any]) -> str:
    """`top1 0.98`, or with the bounds beside it `drop 0.25 [-0.4, 0.9]`."""
    text = f"{name} {_plain_number(found[name])}"
    if f"{name}_low" in found and f"{name}_high" in found:
        text += f" [{_plain_number(found[f'{name}_low'])}, {_plain_number(found[f'{name}_high'])}]"
    return text


def _plain_number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
