"""report.json (every figure) and report.md (what people read), from what the steps measured.

`python -m compress.report RUN [--readme FILE]` prints the main table of a finished run, and puts it into a README.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.readme import fill
from compress.command import Parser, complain
from compress.draft import Draft, Pace
from compress.installed import INSTALL
from compress.photo_tables import photo_sections
from compress.recipe import Recipe
from compress.step_tables import candidate_rows, proof_rows, step_rows, training_rows
from compress.tables import accuracy_rows, baseline_rows, grid, main_rows, parity_rows, speed_rows
from runtimes import RecipeError

if TYPE_CHECKING:
    from rich.table import Table

MARKS = ("<!-- results -->\n", "<!-- /results -->")
PROVEN = (
    "The bundle's tokenizer, resize and towers, in float32, against the checkpoint's own tokenizer, processor and "
    "model. `python -m compress.prove CHECKPOINT BUNDLE --photos FOLDER` compares a bundle as it runs."
)
# What a run leaves beside its work: bundles, evaluation set, report.
PUBLISHED = (
    *("teacher", "teacher.pt2", "teacher.text.pt2", "teacher.fusion.pt2", "student"),
    *("eval", "report.json", "report.md"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a folder that holds no finished run, or a README without the two marks."""
    parser = Parser(prog="python -m compress.report", description="The main table of a finished run.")
    parser.add_argument("run", type=Path, help="a folder that python -m compress.distill made")
    parser.add_argument("--readme", type=Path, help="a file in which the table replaces what stands between the marks")
    try:
        asked = parser.parse_args(arguments)
        report = read_report(asked.run)
        if asked.readme is not None:
            fill_readme(asked.readme, grid(main_rows(report)))
        from rich.console import Console

        Console().print(rich_table(report))
    except RecipeError as error:
        complain(f"error: {error}")
        return 2
    except ImportError as error:
        complain(f"error: the table needs rich ({error}); run: {INSTALL}")
        return 2
    return 0


def read_report(run: Path) -> dict[str, Any]:
    """report.json of a finished run. Raises RecipeError when there is none, or one without the figures it must have."""
    try:
        report: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{run} holds no finished run ({error}); run: python -m compress.distill --resume") from error
    try:
        _ = title(report), main_rows(report)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RecipeError(
            f"{run / 'report.json'} is not the report of a run ({type(error).__name__}: {error}); "
            "run: python -m compress.distill --resume"
        ) from error
    return report


def fill_readme(path: Path, table: str) -> None:
    """Replace what stands between the marks. Raises RecipeError when a mark or the file is missing."""
    fill(path, MARKS, table)


def write_report(draft: Draft, recipe: Recipe) -> tuple[Table, list[Path]]:
    """Write DIR/report.json and DIR/report.md; returns what the command prints: the main table and the paths.

    Raises RecipeError when no step measured anything.
    """
    if draft.report is None:
        raise RecipeError("nothing was measured: the recipe has no [pack] step, so there is no report; add [pack]")
    measured = json.loads(draft.report.read_text(encoding="utf-8"))
    report = {
        "recipe": recipe.name,
        "seed": draft.seed,
        **measured,
        "seconds": dict(draft.seconds),
        "training": {name: _pace(pace) for name, pace in draft.pace.items()},
        "embedded": dict(draft.embedded),
        "steps": dict(draft.metrics),
    }
    (draft.out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (draft.out / "report.md").write_text(markdown(report), encoding="utf-8")
    return rich_table(report), [path for path in (draft.out / name for name in PUBLISHED) if path.exists()]


def title(report: dict[str, Any]) -> str:
    """What the main table is about."""
    return f"{report['recipe']}: {report['data']['images']} {report['data']['split']} images, 95 % intervals"


def rich_table(report: dict[str, Any]) -> Table:
    """The main table for a terminal: intervals and sample sizes on lines of their own, to fit 80 columns."""
    from rich.table import Column, Table

    header, *rows = (tuple(cell.replace(" [", "\n[").replace(" (", "\n(") for cell in row) for row in main_rows(report))
    table = Table(*(Column(text, no_wrap=True) for text in header), title=title(report), show_lines=True)
    for row in rows:
        table.add_row(*row)
    return table


def markdown(report: dict[str, Any]) -> str:
    """report.md: the main table, engines, baselines, what each step cost and measured, machine and versions."""
    words = report["words"]
    unread = [word for word, unknown in words.items() if unknown]
    candidates, trained, proof = candidate_rows(report["steps"]), training_rows(report), proof_rows(report["steps"])
    parts = [
        f"# {report['recipe']}, seed {report['seed']}\n\nBrackets hold 95 % intervals. The test split is used by "
        "[pack] only, after every choice was made.\n",
        grid(main_rows(report)),
        "\n## Accuracy through the SDK, by engine\n\n" + grid(accuracy_rows(report)),
        *photo_sections(report),
        *([f"\n## Is the teacher the checkpoint?\n\n{PROVEN}\n\n{grid(proof)}"] if len(proof) > 1 else []),
        "\n## Do the engines agree?\n\n" + grid(parity_rows(report)),
        "\n## Single-stream time of the image path\n\nA frame in memory to a unit vector, teacher and student in "
        "turn; the speed-up is the median of paired ratios. PyTorch runs the teacher's exported program "
        "(torch.export) operator by operator on the same CPU, in f32.\n\n" + grid(speed_rows(report)),
        "\n## Without a model\n\n" + grid(baseline_rows(report)),
        f"\n## Words never seen in training\n\n{len(words) - len(unread)} of {len(words)} tokenize without an unknown "
        f"token ({', '.join(words)}).\n",
        "\n## What each step cost and measured\n\n" + grid(step_rows(report)),
        *(["\n## Training\n\nThe mean time of a step.\n\n" + grid(trained)] if len(trained) > 1 else []),
        *(["\n## Quantizers that were tried\n\n" + grid(candidates)] if len(candidates) > 1 else []),
        "\n## Measured on\n\n" + "\n".join(f"- {key}: {_plain(value)}" for key, value in report["machine"].items()),
        "- versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()) + "\n",
    ]
    return "\n".join(parts)


def _pace(pace: Pace) -> dict[str, Any]:
    speed = {"seconds_per_step": pace.seconds, "images_per_second": pace.batch / pace.seconds}
    return {"device": pace.device, "processes": pace.processes, "steps": pace.steps, "batch": pace.batch, **speed}


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main())
