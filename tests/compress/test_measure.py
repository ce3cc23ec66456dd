"""What pack measures, on tiny bundles that really recognise: a set of photos, and one with questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evalset import EvalSet
from benchmarks.shop import SHOP
from compress.data import Corpus, Label, Split
from compress.measure import measure
from compress.publish import publish, sizes
from compress.report import markdown
from compress.results import Measured
from compress.tables import main_rows, speed_rows
from sdk.__main__ import main as sdk_main
from sdk.bundle import open_bundle
from tests.bundles import damage
from tests.evalsets import colour_evalset, shop_evalset
from tests.programs import write_programs

Found = tuple[Measured, dict[str, Any]]


def measured(bundle: Path, folder: Path, make: Callable[[Path], EvalSet]) -> Found:
    """The figures, and as much of a report around them as its tables read."""
    write_programs(folder / "teacher.pt2")
    found = measure(bundle, bundle, folder / "teacher.pt2", make(folder), [], seconds=0.02)
    size = sizes(open_bundle(bundle), open_bundle(bundle), "ov:cpu")
    return found, {"recipe": "colours", "seed": 0, **found.table, "size": size, "seconds": {}, "steps": {}}


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


def test_the_teacher_is_timed_as_a_pytorch_program_beside_each_engine(shop: Found) -> None:
    _, report = shop
    rows = [row for row in report["speed"] if row["teacher_on"] == "pt:cpu"]
    assert {row["target"] for row in rows} == {row["target"] for row in report["speed"]} == {"ov:cpu", "ort:cpu"}
    for row in rows:
        assert (row["teacher_compute"], row["student_compute"][:5]) == ("f32", "int8+")
        assert row["speedup"]["n"] >= 50 and row["teacher_ms"]["value"] > 0
    assert [row[1] for row in speed_rows(report)].count("PyTorch") == 2
    assert "one frame (teacher in PyTorch)" in [row[0] for row in main_rows(report)]
    assert "exported program (torch.export) operator by operator" in markdown(report)


def test_report_card_and_slim_tell_the_size_that_was_published(
    shop: Found, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, report = shop
    labels = tuple(Label(name, prompts) for name, prompts in found.evalset.prompts.items())
    split = Split(found.evalset.images, found.evalset.label, found.evalset.possible, found.evalset.possible, ())
    corpus = Corpus("colours", labels, (), ("{}",), split, split, split, "MIT", "0" * 64, (), ())
    table = publish({"teacher": colours, "student": colours}, tmp_path, "kiosk", corpus, found)
    student = open_bundle(tmp_path / "student")
    assert (student.manifest.name, student.manifest.provenance["recipe"]) == ("kiosk-student", "kiosk")
    assert open_bundle(tmp_path / "teacher").manifest.name == "kiosk-teacher"
    card = student.file("card.md").read_text(encoding="utf-8")
    assert card.startswith("# kiosk-student\n")
    for name, row, extra in (
        ("student_int8", "bundle (slim, ov:cpu)", ("--precision", "int8")),
        ("student_int8_no_text", "bundle (no text tower)", ("--precision", "int8", "--no-text")),
    ):
        out = tmp_path / name
        assert sdk_main(["slim", str(student.path), "--for", "ov:cpu", "--out", str(out), *extra]) == 0
        said = capsys.readouterr().out
        size = sum(path.stat().st_size for path in out.iterdir())
        assert table["size"]["bytes"][name] == size, "to the byte, with bundle.json and the card"
        shown = f"{size / 1e6:.2f} MB"
        assert f": {shown}, " in said
        (cells,) = (each for each in main_rows({**report, **table}) if each[0] == row)
        assert cells[2] == shown
        assert f"| {' | '.join(cells)} |" in card


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
