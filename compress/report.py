"""report.json (every figure) and report.md (what people read), from what the steps measured.

`python -m compress.report RUN [--readme FILE]` prints the main table of a finished run, and puts it into a README.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Column, Table
from rich.text import Text

from compress.draft import Draft
from compress.recipe import Recipe
from runtimes import RecipeError

Row = tuple[str, ...]
MARKS = ("<!-- results -->\n", "<!-- /results -->")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a folder that holds no finished run, or a README without the two marks."""
    parser = argparse.ArgumentParser(prog="python -m compress.report", description="The main table of a finished run.")
    parser.add_argument("run", type=Path, help="a folder that python -m compress.distill made")
    parser.add_argument("--readme", type=Path, help="a file in which the table replaces what stands between the marks")
    asked = parser.parse_args(arguments)
    try:
        report = read_report(asked.run)
        if asked.readme is not None:
            fill_readme(asked.readme, grid(main_rows(report)))
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console().print(rich_table(report))
    return 0


def read_report(run: Path) -> dict[str, Any]:
    """report.json of a finished run. Raises RecipeError when there is none."""
    try:
        report: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{run} holds no finished run ({error}); run: python -m compress.distill --resume") from error
    return report


def fill_readme(path: Path, table: str) -> None:
    """Replace what stands between the marks. Raises RecipeError when a mark is missing."""
    text = path.read_text(encoding="utf-8")
    before, mark, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not mark or not end:
        raise RecipeError(f"{path} lacks the marks {MARKS[0].strip()} and {MARKS[1]}")
    path.write_text(before + mark + table + end + after, encoding="utf-8")


def write_report(draft: Draft, recipe: Recipe) -> Group:
    """Write DIR/report.json and DIR/report.md; returns what the command prints: the main table and the paths.

    Raises RecipeError when no step measured anything.
    """
    if draft.report is None:
        raise RecipeError("nothing was measured: the recipe has no [pack] step, so there is no report")
    measured = json.loads(draft.report.read_text(encoding="utf-8"))
    report = {
        "recipe": recipe.name,
        "seed": draft.seed,
        **measured,
        "seconds": dict(draft.seconds),
        "steps": dict(draft.metrics),
    }
    (draft.out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (draft.out / "report.md").write_text(markdown(report), encoding="utf-8")
    paths = [draft.out / name for name in ("teacher", "student", "eval", "report.json", "report.md")]
    return Group(rich_table(report), Text("\n".join(str(path) for path in paths)))


def rich_table(report: dict[str, Any]) -> Table:
    """The main table for a terminal: intervals and sample sizes on lines of their own, to fit 80 columns."""
    header, *rows = (tuple(cell.replace(" [", "\n[").replace(" (", "\n(") for cell in row) for row in main_rows(report))
    title = f"{report['recipe']}: {report['data']['images']} {report['data']['split']} images, 95 % intervals"
    table = Table(*(Column(text, no_wrap=True) for text in header), title=title, show_lines=True)
    for row in rows:
        table.add_row(*row)
    return table


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


def markdown(report: dict[str, Any]) -> str:
    """report.md: the main table, engines, baselines, what each step cost and measured, machine and versions."""
    accuracy = [("model", "precision", "target", "computed in (image)", "top-1", "lost", "mAP", "norm error")]
    for row in report["accuracy"]:
        lost = interval(row["top1_drop"], 2) if "top1_drop" in row else ""
        where = (row["model"], row["precision"], row["target"], row["ran_on"].get("image", ""))
        accuracy.append((*where, percent(row["top1"]), lost, interval(row["map"], 4), f"{row['norm_error']:.1e}"))
    parity = [("model", "precision", "engines", "lowest cosine", "same top-1", "n")]
    for row in report["parity"]:
        same = (f"{row['cosine_min']:.6f}", f"{row['same_top1']:.2%}", str(row["n"]))
        parity.append((row["model"], row["precision"], " and ".join(row["targets"]), *same))
    speed = [("target", "teacher in", "student in", "teacher ms", "student ms", "speed-up", "pairs")]
    for row in report["speed"]:
        times = (milliseconds(row["teacher_ms"]), milliseconds(row["student_ms"]), interval(row["speedup"], 2))
        speed.append((row["target"], row["teacher_compute"], row["student_compute"], *times, str(row["speedup"]["n"])))
    base = report["baselines"]
    baselines = [("baseline", "accuracy"), ("chance, zero-shot", f"{base['chance_top1']:.2%}")]
    baselines.append(("always the largest class", percent(base["largest_class_top1"])))
    if "question_only" in base:
        n = base["question_only"]["n"]
        baselines.append((f"question-only guess, {n} test questions", percent(base["question_only"])))
    words = report["words"]
    unread = [word for word, unknown in words.items() if unknown]
    parts = [
        f"# {report['recipe']}, seed {report['seed']}\n\nBrackets hold 95 % intervals. The test split was used once, "
        "after every choice was made.\n",
        grid(main_rows(report)),
        "\n## Accuracy through the SDK, by engine\n\n" + grid(accuracy),
        "\n## Do the engines agree?\n\n" + grid(parity),
        "\n## Single-stream time of the image path\n\nA frame in memory to a unit vector, teacher and student in "
        "turn; the speed-up is the median of paired ratios.\n\n" + grid(speed),
        "\n## Without a model\n\n" + grid(baselines),
        f"\n## Words never seen in training\n\n{len(words) - len(unread)} of {len(words)} tokenize without an unknown "
        f"token ({', '.join(words)}).\n",
        "\n## What each step cost and measured\n\n" + grid([("step", "seconds", "measured"), *_steps(report)]),
        "\n## Measured on\n\n" + "\n".join(f"- {key}: {_plain(value)}" for key, value in report["machine"].items()),
        "- versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()) + "\n",
    ]
    return "\n".join(parts)


def grid(rows: Sequence[Row]) -> str:
    """A markdown table, header first."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def interval(figure: dict[str, float], digits: int) -> str:
    """`1.23 [1.10, 1.40]`."""
    return f"{figure['value']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def gain(drop: dict[str, float], digits: int) -> str:
    """The interval of a drop, seen as a gain: `[-0.40, +0.10]`."""
    return f"[{0 - drop['high']:+.{digits}f}, {0 - drop['low']:+.{digits}f}]"


def percent(figure: dict[str, float]) -> str:
    """`98.5 % [97.4, 99.1]`."""
    return f"{100 * figure['value']:.2f} % [{100 * figure['low']:.2f}, {100 * figure['high']:.2f}]"


def milliseconds(figure: dict[str, float]) -> str:
    """`1.234 ms`."""
    return f"{figure['value']:.3f} ms"


def megabytes(count: int) -> str:
    """Bytes as `1.23 MB` (1e6)."""
    return f"{count / 1e6:.2f} MB"


def len_labels(report: dict[str, Any]) -> str:
    """`24 prompts`, from chance."""
    return f"{round(1 / report['baselines']['chance_top1'])} prompts"


def _steps(report: dict[str, Any]) -> list[Row]:
    rows = []
    for step, seconds in report["seconds"].items():
        prefix = f"{step}."
        found = {name.removeprefix(prefix): v for name, v in report["steps"].items() if name.startswith(prefix)}
        text = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items()
        )
        rows.append((step, f"{seconds:.0f}", text))
    return rows


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main())
