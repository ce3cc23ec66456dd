"""`python -m benchmarks.contact_sheet`, on bundles that really answer."""

from __future__ import annotations

import importlib.util
import re
import sys
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

import sdk
from benchmarks.contact_drawing import COLOURS, DPI, draw, small
from benchmarks.contact_sheet import Seen, _cell, choose, how_chosen, look, main, summary
from benchmarks.evalset import EvalSet, read_evalset
from runtimes import RecipeError
from sdk.tasks import Answer
from tests.bundles import colour_frame
from tests.photos import save

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed; pip install -e '.[bench]'"
)


def seen(wrong: int, of: int, refused: int = 0) -> list[Seen]:
    """`of` photos, the first `wrong` of them wrong, the last `refused` called none of these."""
    return [
        Seen(Path(f"{index}.png"), "red", Answer("red" if index >= wrong else "blue", 0.9, known=index < of - refused))
        for index in range(of)
    ]


def sheet(run: Path, out: Path, *more: str) -> list[str]:
    return ["--bundle", str(run / "student"), "--eval", str(run / "eval"), "--out", str(out), "--on", "ort:cpu", *more]


@pytest.mark.parametrize("kind", [".jpg", ".PNG"])
def test_the_command_writes_a_picture(
    colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    out = tmp_path / f"sheet{kind}"
    assert main(sheet(colour_run, out, "--rows", "2", "--columns", "3")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "colours on ort:cpu (f32): 24 of 24 test photos of colours right, 100.0 % [86.2, 100.0]"
    assert printed[1] == "shown: 6 drawn at random (seed 0), 0 of them wrong; 0.0 % of all are wrong"
    assert printed[2] == str(out)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    picture = cv2.imread(str(out))
    assert picture is not None
    assert 600 < picture.shape[1] < 640
    main(sheet(colour_run, out, "--rows", "1", "--columns", "3"))  # a picture is replaced
    smaller = cv2.imread(str(out))
    assert smaller is not None
    assert smaller.shape[0] < picture.shape[0]


def test_wrong_ones_are_marked(
    worse: Path, colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = sheet(colour_run, tmp_path / "sheet.png", "--rows", "1", "--columns", "4", "--wrong", "3")
    assert main([*arguments, "--bundle", str(worse)]) == 0
    said = capsys.readouterr().out
    assert "12 of 24 test photos of colours right, 50.0 % [31.4, 68.6]" in said
    assert "shown: 1 right and 3 wrong, as was asked for, drawn at random (seed 0); 50.0 % of all are wrong" in said
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    red = tuple(int(COLOURS["wrong"][at : at + 2], 16) for at in (1, 3, 5))
    row = (picture[90:] == red).all(axis=2).any(axis=0)  # below the title
    assert 3 * 150 < row.sum() < 3 * 200  # three frames, 190 pixels wide


def test_answers_are_those_of_classify(colour_run: Path) -> None:
    evalset = read_evalset(colour_run / "eval")
    with sdk.load(colour_run / "student", on="ort:cpu") as student:
        ticks: list[str] = []
        found = look(student, evalset, lambda note, _: ticks.append(note))
        assert [each.path for each in found] == list(evalset.images)
        assert all(each.right and each.answer.known for each in found)
        assert [each.truth for each in found] == [evalset.labels[k] for k in evalset.label]
        assert len(ticks) == 24
        blind = EvalSet(**{**vars(evalset), "label": np.full(24, -1)})
        with pytest.raises(RecipeError, match="knows the label of no image; there is nothing to show"):
            look(student, blind, lambda *_: None)


def test_without_wrong_it_is_chance_and_with_it_a_choice() -> None:
    every = seen(10, 100)
    drawn = choose(every, 20, None, seed=1)
    assert drawn == choose(every, 20, None, seed=1) != choose(every, 20, None, seed=2)
    assert len(set(drawn)) == 20
    shares = [sum(not each.right for each in choose(every, 20, None, seed)) for seed in range(200)]
    assert np.mean(shares) == pytest.approx(2, abs=0.3)  # a tenth of 20
    for wrong in (0, 5, 10):
        chosen = choose(every, 20, wrong, seed=0)
        assert len(set(chosen)) == 20
        assert sum(not each.right for each in chosen) == wrong
    places = [index for seed in range(20) for index, each in enumerate(choose(every, 20, 5, seed)) if not each.right]
    assert 7 < np.mean(places) < 12, "wrong ones stand anywhere"


@pytest.mark.parametrize(
    ("wrong", "of", "asked", "text"),
    [
        (3, 30, 4, "--wrong 4 of 8 photos cannot be shown: of 30 the student got 3 wrong; give 0 to 3"),
        (28, 30, 5, "--wrong 5 of 8 photos cannot be shown: of 30 the student got 28 wrong; give 6 to 8"),
        (3, 30, -1, "--wrong -1 of 8 photos"),
        (0, 7, None, "8 photos are to be shown, but 7 have a label; lower --rows or --columns"),
    ],
)
def test_too_few_of_a_kind(wrong: int, of: int, asked: int | None, text: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(text)):
        choose(seen(wrong, of), 8, asked, seed=0)


def test_the_title_says_what_was_refused(colour_run: Path) -> None:
    evalset = read_evalset(colour_run / "eval")
    said = summary(seen(100, 1200, refused=7), evalset)
    assert said == (
        "1,100 of 1,200 test photos of colours right, 91.7 % [90.0, 93.1]; "
        "7 of these below the threshold, so called none of these"
    )
    said = how_chosen(seen(1, 4), seen(1, 2), None, 3)
    assert said == "shown: 2 drawn at random (seed 3), 1 of them wrong; 25.0 % of all are wrong"


LONG = "God Morgon Orange and Red Grapefruit Juice without Sugar and without Pulp 87 %"


@pytest.mark.parametrize("columns", [1, 2, 6])
def test_texts_keep_to_their_place(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No text meets another, a photo, or the edge of the picture, however long, wide or odd the names are."""
    from matplotlib.figure import Figure

    texts = ([f"none of these ({LONG})", f"is: {LONG}"], ["W" * 60, "is: " + "M" * 24], ["costs $^$", "is: x"])
    photos = [(colour_frame("red", 64), list(texts[at % 3]), ("wrong", "right", "refused")[at % 3]) for at in range(8)]
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    title = ["grocery on ov:cpu (int8+bf16): 1,112 of 1,265 test photos of grocery right, 87.9 % [86.0, 89.6]", LONG]
    assert draw(photos, columns, title, ".png").startswith(b"\x89PNG")
    (figure,) = drawn
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    width, height = figure.get_size_inches() * DPI
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    for one, two in combinations(boxes, 2):
        apart = one.x1 <= two.x0 or two.x1 <= one.x0 or one.y1 <= two.y0 or two.y1 <= one.y0
        assert apart, (one, two)
    usual = [text.get_fontsize() for text in figure.texts if not set(text.get_text()) & set("WM")]
    assert min(usual) >= 7


def test_a_number_keeps_its_percent_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: drawn.append(self))
    draw([(colour_frame("red", 64), ["valio vanilla yoghurt 86 %"], "right")], 1, [], ".png")
    assert [text.get_text() for text in drawn[0].texts] == ["valio vanilla yoghurt\n86\u00a0%"]


def test_a_big_photo_is_made_small_before_the_next_is_read(tmp_path: Path) -> None:
    big = np.zeros((3000, 4000, 3), np.uint8)
    assert small(big).shape == (285, 380, 3)
    assert small(big[:100, :100]).shape == (100, 100, 3)
    frame, texts, mark = _cell(Seen(save(tmp_path / "big.jpg", big), "red", Answer("red", 0.9)))
    assert frame.shape == (285, 380, 3) and frame.base is None, "nothing holds the whole photo"
    assert (texts, mark) == (["red 90 %"], "right")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--rows", "0"], "--rows must be 1 to 20, got 0"),
        (["--columns", "21"], "--columns must be 1 to 20, got 21"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--out", "sheet.gif"], "--out sheet.gif must end in one of: .jpg, .jpeg, .png"),
        (["--out", "nowhere/sheet.png"], "there is no folder"),
        (["--frob"], "unrecognized arguments: --frob; run: python -m benchmarks.contact_sheet --help"),
        (["--eval", "nowhere"], "is not an evaluation folder"),
        (["--bundle", "no/where"], "is not a bundle"),
        (["--rows", "9"], "54 photos are to be shown, but 24 have a label"),
        (["--wrong", "1"], "of 24 the student got 0 wrong; give 0 to 0"),
    ],
)
def test_bad_input_is_one_line(
    colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], text: str
) -> None:
    assert main(sheet(colour_run, tmp_path / "sheet.png", *more)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert text in said.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sheet.png").mkdir()
    (tmp_path / "sheet.png" / "mine").touch()
    assert main(sheet(colour_run, tmp_path / "sheet.png")) == 2
    assert "cannot be written: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_without_matplotlib_it_says_what_to_install(
    colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(sheet(colour_run, tmp_path / "sheet.png")) == 2
    said = capsys.readouterr().err
    assert "the picture needs matplotlib" in said
    assert "pip install 'edge-pupil[bench]'" in said
