"""Throughput, start and idleness: measured on a tiny bundle, so that the figures are real and nobody's."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from benchmarks.readme import fill
from benchmarks.service import MARKS, Line, main, table
from benchmarks.start import import_ratio, started
from benchmarks.throughput import app_per_second, per_second
from runtimes import RecipeError, Unavailable
from sdk.bundle import open_bundle

ROOT = Path(__file__).parents[2]


def test_a_bar_is_held_from_the_right_side() -> None:
    assert Line("a", 0.96, "0.96", 0.95, least=True).met
    assert not Line("a", 0.94, "0.94", 0.95, least=True).met
    assert Line("a", 1.4, "1.4", 1.5).met
    assert not Line("a", float("nan"), "?", 1.5).met
    assert Line("a", 1.6, "1.60", 1.5).row() == "| a | 1.60 | at most 1.5 | **no** |"


def test_calls_are_counted_over_threads() -> None:
    assert per_second(lambda: time.sleep(0.01), 4, 0.5) == pytest.approx(400, rel=0.5)


def test_a_start_is_measured_in_a_process_of_its_own(colours: Path, tmp_path: Path) -> None:
    cold = started(colours, tmp_path)
    warm = started(colours, tmp_path, idle=0.2)
    assert list(tmp_path.glob("choice-*.json"))
    for each in (cold, warm):
        assert each.answer_s > 0 and each.resident_mb > 20
        assert re.fullmatch(r"\w+:\w+ (fp32|int8)", each.on)
    assert warm.idle_of == 0.2
    assert started(colours, tmp_path, on="ort:cpu").on.startswith("ort:cpu ")


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"a fresh process of -m benchmarks\.start failed: .*is not a bundle"):
        started(tmp_path, tmp_path)


def test_importing_costs_about_what_numpy_and_opencv_do() -> None:
    assert 0.5 < import_ratio(1).value < 5


def test_openvinos_own_application_runs(colours: Path, tmp_path: Path) -> None:
    assert app_per_second(open_bundle(colours), "int8", 1) > 0


def test_bad_input_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not a bundle" in capsys.readouterr().err
    assert main(["x", "--runs", "0"]) == 2
    assert "--runs, --seconds and --idle must be above 0; run: python -m benchmarks.service" in capsys.readouterr().err


def test_the_table_goes_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}old\n{MARKS[1]}\nafter")
    fill(page, MARKS, table([Line("a", 1, "1", 2)], "bundles/shop"))
    text = page.read_text()
    assert "old" not in text
    assert re.search(r"\| `shop` on .* cores \| measured \| bar \| met \|", text)
    assert "| a | 1 | at most 2 | yes |\n" in text
    assert text.endswith(f"{MARKS[1]}\nafter")
    page.write_text("nothing")
    with pytest.raises(RecipeError, match=r"page\.md lacks the marks <!-- service --> and <!-- /service -->; add them"):
        fill(page, MARKS, "")
    with pytest.raises(RecipeError, match=r"--readme .* cannot be filled .*; give a text file that can be written"):
        fill(tmp_path / "none.md", MARKS, "")


def test_the_readme_has_a_place_for_it() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(mark in text for mark in MARKS)
