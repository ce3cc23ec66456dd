from __future__ import annotations

import pytest

from benchmarks.require import Bar, judge, parse_bar
from runtimes import RecipeError

FIGURES = {"student.map": {"ov:cpu": 0.9, "ort:cpu": 0.7}, "student.bytes": {}}


@pytest.mark.parametrize(
    ("text", "bar"),
    [
        ("student.map>=0.5", ("student.map", None, ">=", 0.5)),
        (" student.map  <  1e-3 ", ("student.map", None, "<", 0.001)),
        ("student.map@OV:CPU > 0", ("student.map", "ov:cpu", ">", 0.0)),
        ("layer.labels_us@ort:cuda.0 <= 50", ("layer.labels_us", "ort:cuda.0", "<=", 50.0)),
        ("student.zero_shot.drop > -1", ("student.zero_shot.drop", None, ">", -1.0)),
    ],
)
def test_parses(text: str, bar: tuple[str, str | None, str, float]) -> None:
    assert parse_bar(text) == Bar(text, *bar)


@pytest.mark.parametrize(
    "text", ["", "student.map", "student.map <= 1 <= 2", "student.map == 1", "__import__('os') < 1"]
)
def test_refuses_another_form(text: str) -> None:
    with pytest.raises(RecipeError, match="cannot be read; write NAME OP NUMBER, such as"):
        parse_bar(text)


@pytest.mark.parametrize(
    ("text", "met", "said"),
    [
        ("student.map >= 0.8", False, "missed by 0.1, it is 0.7 on ort:cpu"),
        ("student.map <= 0.8", False, "missed by 0.1, it is 0.9 on ov:cpu"),
        ("student.map@ov:cpu >= 0.8", True, "met by 0.1, it is 0.9 on ov:cpu"),
        ("student.map >= 0.7", True, "met by 0, it is 0.7 on ort:cpu"),
        ("student.map > 0.7", False, "missed by 0, it is 0.7 on ort:cpu"),
        ("student.bytes < 5", False, "missed, for it was not measured (size on disk"),
    ],
)
def test_is_held_against_the_worst_target(text: str, met: bool, said: str) -> None:
    outcome = judge(parse_bar(text), FIGURES)
    assert outcome.met is met
    assert said in outcome.text
