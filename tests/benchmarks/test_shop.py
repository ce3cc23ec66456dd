"""Coarse classes, product search and none of these, through the deployed graphs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import sdk
from benchmarks.accuracy import accuracy_of
from benchmarks.checks import check_bars
from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Cell, Result, add_labels, evaluate
from benchmarks.plan import make_plan
from benchmarks.require import NAMES, parse_bar
from benchmarks.shop import IN_ONE, SHOP, drop_name, shop_drops, shop_figures, why_not
from runtimes import RecipeError
from sdk.bundle import open_bundle
from sdk.tasks import Answer
from tests.bundles import GROUPS, damage
from tests.evalsets import COUNT, colour_evalset, shop_evalset

CELL = Cell("ort:cpu", "fp32")


@pytest.fixture(scope="module")
def evalset(tmp_path_factory: pytest.TempPathFactory) -> EvalSet:
    return shop_evalset(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def plain(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour bundle without a threshold."""
    out = tmp_path_factory.mktemp("plain") / "bundle"
    return damage(colours, out, change=lambda table: table.update(unknown_threshold=None))


@pytest.fixture(scope="module")
def result(colours: Path, evalset: EvalSet) -> Result:
    return evaluate(colours, evalset, CELL, lambda _: None)


def test_every_figure_of_a_shop(result: Result) -> None:
    figures = shop_figures(result)
    assert list(figures) == list(SHOP)
    # Green and blue together are always more than black, which looks like both.
    assert figures["coarse.accuracy"].value == pytest.approx(20 / 24)
    assert {figures[f"search.photo_to_text_r{k}"].n for k in (1, 5)} == {20}  # black has no text
    assert {figures[f"search.text_to_photos_r{k}"].n for k in (1, 5)} == {5}
    assert all(figures[name].value == 1 for name in SHOP if name.startswith("search."))
    assert figures["unknown.auroc"].value == 1
    assert figures["unknown.accepted"].value == 1
    assert figures["unknown.refused"].value == pytest.approx(4 / 24)  # red; any other colour has a near one at 0.9
    for figure in figures.values():
        assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_the_same_loses_nothing_and_a_worse_one_what_it_lost(worse: Path, evalset: EvalSet, result: Result) -> None:
    assert {figure.value for figure in shop_drops(result, result).values()} == {0}
    student = evaluate(worse, evalset, CELL, lambda _: None)  # it takes red for green as labels, and "white" for red
    drops = shop_drops(result, student)
    assert list(drops) == list(SHOP)
    both = shop_figures(result), shop_figures(student)
    for name, drop in drops.items():
        scale = 1 if name in IN_ONE else 100
        assert drop.value == pytest.approx(scale * (both[0][name].value - both[1][name].value))
        assert drop.low <= drop.value <= drop.high
    # The text of white reads like that of red, which stands first.
    assert drops["search.photo_to_text_r1"].value == pytest.approx(100 * 4 / 20)
    assert drops["search.map"].value > 0
    assert drops["coarse.accuracy"].value > 0


def test_a_set_without_groups_and_texts_has_none_of_it(plain: Path, tmp_path: Path) -> None:
    result = evaluate(plain, colour_evalset(tmp_path), CELL, lambda _: None)
    assert (result.coarse, result.search, result.unknown) == (None, None, None)
    assert shop_figures(result) == shop_drops(result, result) == {}


def test_rows_of_a_report_have_them_where_the_set_has(plain: Path, evalset: EvalSet, tmp_path: Path) -> None:
    bundles = dict.fromkeys(("teacher", "student"), open_bundle(plain))
    plan = make_plan(bundles, ["ort:cpu"], tmp_path, tmp_path)
    teacher, student = (plan.on("ort:cpu", who)[0] for who in ("teacher", "student"))
    results = {str(each): evaluate(each.bundle, evalset, each.cell, lambda _: None) for each in (teacher, student)}
    rows = [accuracy_of(plan, each, evalset, results) for each in (teacher, student)]
    assert [set(row) & {"shop", "shop_drop"} for row in rows] == [{"shop"}, {"shop", "shop_drop"}]
    assert rows[1]["shop_drop"]["coarse.accuracy"].keys() == {"value", "low", "high", "n"}
    bare = dataclasses.replace(evalset, groups=(), texts=())
    results = {str(each): evaluate(each.bundle, bare, each.cell, lambda _: None) for each in (teacher, student)}
    assert not {"shop", "shop_drop"} & set(accuracy_of(plan, student, bare, results))


def test_a_threshold_alone_asks_for_none_of_these(colours: Path, tmp_path: Path) -> None:
    result = evaluate(colours, colour_evalset(tmp_path), CELL, lambda _: None)
    assert list(shop_figures(result)) == ["unknown.auroc", "unknown.accepted", "unknown.refused"]


def test_the_text_tower_makes_the_product_texts(result: Result, evalset: EvalSet) -> None:
    assert result.search is not None
    np.testing.assert_allclose(result.search.texts, result.queries[:5], atol=1e-6)  # the prompts are the same words
    assert result.search.photos.n == COUNT


def test_it_is_what_the_sdk_answers(colours: Path, evalset: EvalSet) -> None:
    """Coarse classes of `classify(groups=True)`, texts of `search`, `known` of an answer, photo by photo."""
    grouped = dataclasses.replace(evalset, groups=tuple(GROUPS.get(name, "") for name in evalset.labels))  # the bank's
    result = evaluate(colours, grouped, CELL, lambda _: None)
    assert result.coarse is not None and result.search is not None and result.unknown is not None
    assert result.unknown.accepted is not None
    own = {label: group or label for label, group in zip(grouped.labels, grouped.groups, strict=True)}
    with sdk.load(colours, on=CELL.on, precision=CELL.precision) as student:
        add_labels(student, grouped)
        places = iter(result.search.place)
        for at, path in enumerate(grouped.images):
            name = grouped.labels[grouped.label[at]]
            (answer,) = student.classify(path, list(grouped.labels), groups=True)
            assert isinstance(answer, Answer)
            assert (answer.label == own[name], answer.known) == (result.coarse[at], result.unknown.accepted[at])
            if name != "black":  # which has no text
                assert student.search(path, result.search.texts, k=5)[next(places)].index == grouped.label[at]


def test_bars_can_name_all_of_it() -> None:
    for name in SHOP:
        assert {f"student.{name}", f"teacher.{name}", f"student.{drop_name(name)}"} <= NAMES.keys()
    for text in ("student.coarse.drop", "student.search.photo_to_text_r1.drop", "student.unknown.auroc"):
        assert parse_bar(f"{text} <= 1").name == text


@pytest.mark.parametrize(
    ("bar", "why"),
    [
        ("student.coarse.drop < 1", "the labels of colours have no groups"),
        ("teacher.search.map > 0", "the labels of colours have no texts"),
        ("student.unknown.auroc > 0", "has no unknown_threshold"),
        ("student.unknown.refused.drop < 1", "has no unknown_threshold"),
    ],
)
def test_a_bar_on_what_the_set_does_not_ask(plain: Path, tmp_path: Path, bar: str, why: str) -> None:
    bundles = dict.fromkeys(("teacher", "student"), open_bundle(plain))
    with pytest.raises(RecipeError, match=f"--require '{bar}' cannot be measured: .*{why}; leave it out"):
        check_bars([parse_bar(bar)], bundles, colour_evalset(tmp_path))


def test_a_bar_on_what_the_set_asks(plain: Path, colours: Path, evalset: EvalSet) -> None:
    without, able = open_bundle(plain), open_bundle(colours)
    texts = ("student.coarse.drop < 1", "student.search.map.drop < 1", "student.unknown.auroc.drop < 1")
    bars = [parse_bar(text) for text in (*texts, "layer.labels_us < 50")]
    check_bars(bars, {"teacher": without, "student": without}, evalset)
    check_bars([parse_bar("student.unknown.accepted > 0")], {"teacher": without, "student": able}, evalset)
    assert why_not("unknown.accepted.drop", [without, able], evalset) == f"{plain} has no unknown_threshold"
