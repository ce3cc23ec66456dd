"""report.json (every figure), report.md (what people read), samples.jsonl and the picture: whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.checks import OURS, REPORT
from benchmarks.figures import main_cells
from benchmarks.picture import PICTURE, draw
from benchmarks.samples import Samples
from benchmarks.shop_tables import narrow_shop_rows, shop_rows, shop_section
from benchmarks.tables import (
    Row,
    accuracy_rows,
    aligned,
    baseline_rows,
    fresh_rows,
    grid,
    interval,
    latency_rows,
    layer_rows,
    main_rows,
    megabytes,
    narrow_rows,
    speedup_rows,
    stage_rows,
)
from runtimes import RecipeError


def write_report(out: Path, report: dict[str, Any], samples: Samples) -> list[Path]:
    """Write the folder `out`, replacing an older report. Returns the files. Raises RecipeError when that fails."""
    folder = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".pupil-", dir=out.parent))
        folder.chmod(0o755)
        report["picture"] = draw(report, folder / PICTURE)
        samples.write(folder / "samples.jsonl")
        (folder / "report.md").write_text(markdown(report), encoding="utf-8")
        text = json.dumps(report, indent=1, ensure_ascii=False)
        (folder / REPORT).write_text(text + "\n", encoding="utf-8")
        names = sorted(path.name for path in folder.iterdir())
        _publish(folder, out)
    except OSError as error:
        raise RecipeError(f"--out {out} cannot be written: {error}; no half report was left behind") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return [out / name for name in names]


def _publish(folder: Path, out: Path) -> None:
    """Rename into place; a folder in the way is moved aside first, because a rename does not replace a full one."""
    aside = folder.with_name(folder.name + "-old")
    if out.exists():
        out.rename(aside)
    try:
        folder.rename(out)
    except BaseException:  # Ctrl-C too
        if aside.exists():
            aside.rename(out)
        raise
    if aside.exists():
        for path in aside.iterdir():
            if path.name not in OURS:  # put there while the run was on
                path.rename(out / path.name)
    shutil.rmtree(aside, ignore_errors=True)


def markdown(report: Mapping[str, Any]) -> str:
    """report.md."""
    data = report["data"]
    quick = f"\n**{_quick(report)}**\n" if report["quick"] else ""
    parts = [
        f"# {report['teacher']['name']} and {report['student']['name']}\n\n{_headline(report)}\n{quick}\n"
        f"{data['name']}, {data['split']} split: {data['images']} images, {data['labels']} labels, "
        f"{data['questions']} questions. Brackets hold 95 % intervals, and are left out where samples are too "
        "few for one; *lost* is in points, paired with the teacher on the same target; memory is of the image path; "
        "speed-up is against the teacher's fp32 graph, computed in f32 and as the engine likes it by "
        "default, timed in turn.\n",
        grid(main_rows(report)),
        f"\n![accuracy against latency]({PICTURE})\n" if report["picture"] is None else f"\n({report['picture']})\n",
        *shop_section(report),
        *_section("Required", _required(report)),
        "\n## How much faster\n\nStudent and teacher timed in turn, call by call; the median of paired ratios.\n\n"
        + grid(speedup_rows(report)),
        "\n## Accuracy through the deployed graphs\n\n*typed in*: the set's prompts instead of the label bank.\n\n"
        + grid(accuracy_rows(report)),
        "\n" + grid(baseline_rows(report)),
        "\n(The commonest answers are counted on this very set: the most that guessing could reach.)\n",
        "\n## Speed\n\nSingle-stream: a frame in memory to a unit vector, one at a time. Offline: all frames wait.\n\n"
        + grid(latency_rows(report)),
        "\n## Stages, medians in ms\n\nQuestions of *file to answer* come again, so their text is read already.\n\n"
        + grid(stage_rows(report)),
        "\n## A process of its own\n\nLoad is from nothing: engine, bundle, golden inputs. Load, first call and "
        "memory are of the image path: towers for texts and questions are opened when the first one comes.\n\n"
        + grid(fresh_rows(report)),
        "\n## What our layer costs\n\nCalls of the SDK minus the engine's own request on the same session, in turn.\n\n"
        + grid(layer_rows(report)),
        *_section("Not measured", [_skipped(each) for each in report["not_opened"]]),
        "\n## Measured on\n\n" + "\n".join(f"- {key}: {_plain(value)}" for key, value in report["machine"].items()),
        "- versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        f"- bundles: teacher {report['teacher']['hash'][:16]}, student {report['student']['hash'][:16]}",
        f"- {report['seconds']:.0f} s; raw samples in samples.jsonl, every figure in {REPORT}\n",
    ]
    return "\n".join(parts)


def _headline(report: Mapping[str, Any]) -> str:
    """A sentence per target: what the student costs, and what it gains."""
    fast = {(pair["target"], pair["against"]): pair for pair in report["speedups"]}
    said = []
    for target in report["targets"]:
        cells = main_cells(report, target)
        if "student" in cells and "teacher" not in cells:
            said.append(f"- On **{target}** no teacher was measured, so what the student lost there is not known.")
        if len(cells) < 2 or (target, "f32") not in fast:
            continue
        teacher, student = cells["teacher"], cells["student"]
        lost = interval(student["accuracy"]["top1_drop"], 2)
        answers = student["accuracy"].get("answers_drop")
        asked = f" and {interval(answers, 2)} points of answers" if answers else ""
        default = fast[target, "default"]
        size = f"{megabytes(student['bytes'])} instead of {megabytes(teacher['bytes'])}"
        said.append(
            f"- On **{target}** the student loses {lost} points of top-1{asked}, "
            f"is **{fast[target, 'f32']['speedup']['value']:.2f} times as fast** "
            f"({default['speedup']['value']:.2f} times, if the teacher runs in the engine's default, "
            f"{default['slow']['compute']}), and needs {size}."
        )
    return "\n".join(said)


def _quick(report: Mapping[str, Any]) -> str:
    data, effort = report["data"], report["effort"]
    return (
        f"A quick look: {data['images']} of {data['all_images']} images, {effort['seconds']:g} s a clock. "
        "Not for a decision."
    )


def _skipped(each: Mapping[str, Any]) -> str:
    asked = f" in {each['precision']}" if each["precision"] else ""
    return f"{each['on']} {each['who']} {each['stored']}{asked}: {each['reason']}"


def _required(report: Mapping[str, Any]) -> list[str]:
    return [each["text"] for each in report["required"]]


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"\n## {title}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"] if lines else []


def show(report: Mapping[str, Any]) -> None:
    """Print the first table, and that of coarse classes, search and none of these where there is one: with rich where
    it is installed."""
    if report["quick"]:
        print(_quick(report))
    try:
        from rich.console import Console
        from rich.table import Column, Table
    except ImportError:
        print("\n\n".join(aligned(rows) for rows in (main_rows(report), *_shop(shop_rows(report)))))
        return
    for header, *rest in (narrow_rows(report), *_shop(narrow_shop_rows(report))):
        table = Table(*(Column(text, no_wrap=True) for text in header), show_lines=True)
        for row in rest:
            table.add_row(*row)
        Console().print(table)


def _shop(rows: list[Row]) -> list[list[Row]]:
    """The table, or none where it has only a header."""
    return [rows] if len(rows) > 1 else []


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
