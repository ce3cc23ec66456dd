"""The tables of a report, as rows of text, header first: every figure that report.json holds, as people read it.

Those of the steps are in compress/step_tables.py, those of photos in compress/photo_tables.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.eager import TARGET as EAGER
from benchmarks.tables import Row, grid, interval, megabytes, percent
from compress.photo_tables import class_main_row, shop_main_rows

__all__ = ["Row", "grid", "interval", "megabytes", "percent"]


def main_rows(report: dict[str, Any]) -> list[Row]:
    """The main table, header first: teacher fp32 and student int8 on the first engine, and the change."""
    engine = report["size"]["slim_for"]
    cells = {(r["model"], r["precision"]): r for r in report["accuracy"] if r["target"] == engine}
    teacher, student = cells["teacher", "fp32"], cells["student", "int8"]
    return [
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
        *_size_rows(report["size"]),
        *_time_rows(row for row in report["speed"] if row["target"] == engine),
    ]


def _size_rows(size: dict[str, Any]) -> list[Row]:
    """Parameters of the image tower, and bytes of slim bundles."""
    bytes_ = size["bytes"]
    params = {who: towers["image"] for who, towers in size["params"].items()}
    return [
        (
            "image tower",
            *(f"{params[who] / 1e6:.2f} M params" for who in ("teacher", "student")),
            f"{params['teacher'] / params['student']:.1f}x fewer",
        ),
        (
            f"bundle (slim, {size['slim_for']})",
            megabytes(bytes_["teacher_fp32"]),
            megabytes(bytes_["student_int8"]),
            f"{bytes_['teacher_fp32'] / bytes_['student_int8']:.1f}x smaller",
        ),
        ("bundle (no text tower)", "", megabytes(bytes_["student_int8_no_text"]), ""),
    ]


def _time_rows(speed: Iterable[dict[str, Any]]) -> list[Row]:
    """A frame's time, for each arithmetic of the teacher."""
    return [
        (
            f"one frame (teacher in {teacher_in(row)})",
            milliseconds(row["teacher_ms"]),
            milliseconds(row["student_ms"]),
            f"{row['speedup']['value']:.2f}x faster [{row['speedup']['low']:.2f}, {row['speedup']['high']:.2f}]",
        )
        for row in speed
    ]


def teacher_in(row: dict[str, Any]) -> str:
    """What the teacher of a row of `speed` computes in, and on what, if that is not the row's own target."""
    return "PyTorch" if row["teacher_on"] == EAGER else str(row["teacher_compute"])


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
        rows.append((row["target"], teacher_in(row), row["student_compute"], *times, str(row["speedup"]["n"])))
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


def gain(drop: dict[str, float], digits: int) -> str:
    """The interval of a drop, seen as a gain: `[-0.40, +0.10]`."""
    return f"[{0 - drop['high']:+.{digits}f}, {0 - drop['low']:+.{digits}f}]"


def milliseconds(figure: dict[str, float]) -> str:
    """`1.234 ms`."""
    return f"{figure['value']:.3f} ms"


def len_labels(report: dict[str, Any]) -> str:
    """`24 prompts`, from chance."""
    return f"{round(1 / report['baselines']['chance_top1'])} prompts"
