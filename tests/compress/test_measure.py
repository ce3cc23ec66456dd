"""What pack measures, on tiny bundles that really recognise: a set of photos, and one with questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evalset import EvalSet
from benchmarks.shop import SHOP
from compress.measure import measure
from compress.report import markdown
from compress.results import Measured
from compress.tables import main_rows
from tests.bundles import damage
from tests.evalsets import colour_evalset, shop_evalset

Found = tuple[Measured, dict[str, Any]]


def measured(bundle: Path, folder: Path, make: Callable[[Path], EvalSet]) -> Found:
    """The figures, and as much of a report around them as its tables read."""
    found = measure(bundle, bundle, make(folder), [], seconds=0.02)
    return found, {"recipe": "colours", "seed": 0, **found.table, "seconds": {}, "steps": {}}


@pytest.fixture(scope="module")
def shop(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    return measured(colours, tmp_path_factory.mktemp("shop"), shop_evalset)


def test_photos_have_every_figure_of_a_shop(shop: Found) -> None:
    found, report = shop
    for row in report["accuracy"]:
        assert list(row["shop"]) == list(SHOP)
        assert ("shop_drop" in row) is (row["model"] == "student")
    assert set(SHOP) < found.quality("student").keys()
    assert {each["name"] for each in report["classes"]} == {"red", "green", "blue", "yellow", "white", "black"}
    names = [row[0] for row in main_rows(report)]
    assert names.index("coarse classes right (n=24)") == names.index("text-to-image mAP (n=24)") + 1
    assert ("classes that lost significantly", "", "0 of 6", "none lost a photo") in main_rows(report)
    parts = ("## Accuracy through", "## Coarse classes, product", "## Which classes lost", "## Do the engines")
    places = [markdown(report).index(part) for part in parts]
    assert places == sorted(places)


def test_a_set_with_questions_has_the_tables_it_always_had(colours: Path, tmp_path: Path) -> None:
    bundle = damage(colours, tmp_path / "bundle", change=lambda table: table.update(unknown_threshold=None))
    (tmp_path / "images").mkdir()
    found, report = measured(bundle, tmp_path / "images", colour_evalset)
    assert not set(SHOP) & found.quality("student").keys()
    assert not {"classes", "shop"} & {*report, *report["accuracy"][0], *report["accuracy"][-1]}
    names = [row[0] for row in main_rows(report)]
    assert names[1:4] == ["zero-shot top-1 (6 prompts, n=24)", "text-to-image mAP (n=24)", "questions right (n=48)"]
    assert names[4] == "image tower"
    assert "Which classes" not in markdown(report) and "Coarse" not in markdown(report)
