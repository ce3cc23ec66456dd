from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdk
from runtimes import FeedError
from sdk import labels as labels_module
from sdk.embed import Embedder
from sdk.label_set import LabelSet
from sdk.labels import LabelBank
from tests.bundles import BANK, GROUPS, damage


class Student:
    """A bank over a loaded bundle, and the texts that went through its text tower."""

    def __init__(self, student: sdk.Student) -> None:
        self.asked: list[str] = []
        inner: Embedder = student._embed

        def embed(texts: Sequence[str]) -> tuple[np.ndarray, tuple[int, ...]]:
            self.asked += texts
            return inner.texts(texts)

        self.bank = LabelBank(student.bundle, embed)


@pytest.fixture(scope="module")
def loaded(colours: Path) -> Iterator[sdk.Student]:
    with sdk.load(colours, budget_s=0) as student:
        yield student


@pytest.fixture
def student(loaded: sdk.Student) -> Student:
    return Student(loaded)


def vector(bank: LabelBank, label: str) -> np.ndarray:
    return bank.resolve([label]).vectors[0]


def test_starts_as_the_bundles(student: Student) -> None:
    bank = student.bank
    assert bank.list() == list(bank) == list(BANK)
    assert len(bank) == len(BANK)
    assert "red" in bank
    assert "purple" not in bank
    assert 5 not in bank
    assert not student.asked


def test_add_goes_to_the_end_and_asks_for_the_templates_only(student: Student) -> None:
    before = student.bank.current
    student.bank.add("purple")
    assert student.bank.list() == [*BANK, "purple"]
    assert student.asked == ["a purple wall"]
    np.testing.assert_array_equal(student.bank.current.vectors[:4], before.vectors)
    np.testing.assert_allclose(np.linalg.norm(student.bank.current.vectors, axis=1), 1, atol=1e-6)
    assert before.names == BANK  # a frame that began before the edit still has its own set


def test_prompts_are_averaged_as_unit_vectors(student: Student, loaded: sdk.Student) -> None:
    prompts = ["a red wall", "purple", "a white wall"]
    student.bank.add("mine", prompts)
    assert student.asked == prompts
    mean = loaded.embed_texts(prompts).mean(axis=0)
    np.testing.assert_allclose(student.bank.current.vectors[-1], mean / np.linalg.norm(mean), atol=1e-6)
    assert student.asked == prompts


def test_without_templates_the_label_is_the_prompt(colours: Path, tmp_path: Path) -> None:
    path = damage(colours, tmp_path / "b", change=lambda t: t["text"].update(templates=[]))
    with sdk.load(path, budget_s=0) as loaded:
        student = Student(loaded)
        student.bank.add("purple")
        assert student.asked == ["purple"]


def test_a_template_is_data_not_a_format(colours: Path, tmp_path: Path) -> None:
    template = "{0.__class__} {} {label}"
    path = damage(colours, tmp_path / "b", change=lambda t: t["text"].update(templates=[template, "the {} {}"]))
    with sdk.load(path, budget_s=0) as loaded:
        student = Student(loaded)
        student.bank.add("purple")
        assert student.asked == ["{0.__class__} purple {label}", "the purple purple"]


def test_unknown_tokens_are_summed_over_prompts(student: Student) -> None:
    student.bank.replace({"red": ["red"], "odd": ["a strange thing", "qwerty"]})
    assert student.bank.current.unknown == (0, 3)


def test_remove(student: Student) -> None:
    before = student.bank.current
    student.bank.remove("green")
    assert student.bank.list() == ["red", "blue", "yellow"]
    np.testing.assert_array_equal(student.bank.current.vectors, before.vectors[[0, 2, 3]])
    for label in ("red", "blue", "yellow"):
        student.bank.remove(label)
    assert len(student.bank) == 0
    with pytest.raises(FeedError, match="the label 'red' is not in the bank; it holds: nothing"):
        student.bank.remove("red")
    student.bank.add("green")  # as the bundle had it: no text tower needed
    assert not student.asked
    np.testing.assert_array_equal(student.bank.current.vectors, before.vectors[[1]])


def test_an_error_names_some_labels_not_thousands(student: Student) -> None:
    student.bank.replace([f"red {i}" for i in range(20)])
    with pytest.raises(FeedError, match=r"'red' is not in the bank; it holds: red 0, .*, red 7 and 12 more$"):
        student.bank.remove("red")


def test_replace_by_names_keeps_what_is_known(student: Student) -> None:
    red = vector(student.bank, "red")
    student.bank.replace(("purple", "red"))
    assert student.bank.list() == ["purple", "red"]
    assert student.asked == ["a purple wall"]
    np.testing.assert_array_equal(student.bank.current.vectors[1], red)


def test_replace_by_prompts_gives_a_label_another_meaning(student: Student) -> None:
    red, blue = vector(student.bank, "red"), vector(student.bank, "blue")
    student.bank.replace({"red": ["blue"]})
    assert student.bank.list() == ["red"]
    assert student.bank.current.vectors[0] @ blue > 0.99 > red @ blue


def test_prompts_are_not_remembered_behind_a_name(student: Student) -> None:
    """What is in the bank is used as the bank has it; put there by name alone, it means what the bundle says."""
    red = vector(student.bank, "red")
    student.bank.replace({"red": ["blue"]})
    np.testing.assert_array_equal(vector(student.bank, "red"), student.bank.current.vectors[0])
    assert vector(student.bank, "red") @ red < 0.99
    student.bank.replace(["red"])
    np.testing.assert_array_equal(vector(student.bank, "red"), red)
    np.testing.assert_array_equal(student.bank.current.vectors, red[None])
    student.bank.add("purple", ["white"])
    student.bank.remove("purple")
    student.asked.clear()
    student.bank.add("purple")
    assert student.asked == ["a purple wall"]


def test_prompts_may_come_from_a_generator(student: Student) -> None:
    student.bank.add("mine", (text for text in ("a red wall", "white")))
    student.bank.replace({"mine": iter(["purple"])})
    assert student.asked == ["a red wall", "white", "purple"]


def test_the_same_labels_again_cost_nothing(student: Student) -> None:
    first = student.bank.resolve(["purple", "red"])
    assert student.bank.resolve(("purple", "red")) is first
    assert student.bank.resolve(["red", "purple"]).names == ("red", "purple")
    student.bank.replace({"red": ["blue"]})
    assert student.bank.resolve(["red", "purple"]).vectors[0] @ first.vectors[1] < 0.99, "an edit is seen at once"


def test_an_empty_bank_does_not_make_no_labels_an_answer(student: Student) -> None:
    for label in student.bank.list():
        student.bank.remove(label)
    with pytest.raises(FeedError, match="no labels were given"):
        student.bank.resolve([])


Edit = Callable[[LabelBank], object]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda bank: bank.add("red"), "'red' is in the bank already; remove it first, or use replace"),
        (lambda bank: bank.add(""), "a label must be a text that is not empty, but '' came"),
        (lambda bank: bank.add(" ", ["a wall"]), "a label must be a text that is not empty, but ' ' came"),
        (lambda bank: bank.add(None), "a label must be a text that is not empty, but None came"),
        (lambda bank: bank.add("x", []), "the prompts of 'x' must be a list of at least one text"),
        (
            lambda bank: bank.add("x", "a wall"),
            "the prompts of 'x' must be a list of at least one text, but 'a wall' came",
        ),
        (lambda bank: bank.add("x", 5), "the prompts of 'x' must be a list of at least one text, but 5 came"),
        (lambda bank: bank.add("x", ["a", 5]), r"the prompts of 'x' must be a list .*, but \['a', 5\] came"),
        (lambda bank: bank.add([], ["a wall"]), r"a label must be a text that is not empty, but \[\] came"),
        (lambda bank: bank.replace({"x": 5}), "the prompts of 'x' must be a list of at least one text, but 5 came"),
        (lambda bank: bank.add("x", ["a wall", ""]), "a text is empty"),
        (lambda bank: bank.remove("nope"), "'nope' is not in the bank; it holds: red, green, blue, yellow$"),
        (lambda bank: bank.replace([]), "no labels were given; give at least one, or fill the bank"),
        (lambda bank: bank.replace({}), "no labels were given"),
        (lambda bank: bank.replace("red"), r"labels must be a list of str, but str came; write \[label\]"),
        (lambda bank: bank.replace(5), "labels must be a list of str, but int came"),
        (lambda bank: bank.replace(["purple", "red", "purple"]), "'purple' was given twice; give each label once"),
        (lambda bank: bank.replace(["purple", 5]), "a label must be a text that is not empty, but 5 came"),
        (lambda bank: bank.replace({"red": ["blue"], "": ["a"]}), "a label must be a text that is not empty, but ''"),
        (lambda bank: bank.replace({"red": ["blue"], "x": []}), "the prompts of 'x' must be a list of at least one"),
        (lambda bank: bank.replace({"red": ["blue"], "x": [" "]}), "a text is empty"),
    ],
)
def test_an_edit_that_fails_changes_nothing(student: Student, edit: Edit, message: str) -> None:
    before = student.bank.current
    with pytest.raises(FeedError, match=message):
        edit(student.bank)
    assert student.bank.current is before
    known = student.bank.resolve(BANK)  # and what is remembered beside the bank neither
    np.testing.assert_array_equal(known.vectors, before.vectors)


def test_phrases_are_remembered_within_a_limit_that_never_costs_the_bank(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a bundle slimmed with --no-text a label of the bank that is forgotten cannot be embedded again."""
    monkeypatch.setattr(labels_module, "_REMEMBERED", 6)
    bank: Any = student.bank
    bank.resolve(["one", "two"])
    student.asked.clear()
    bank.resolve(["two", "one"])
    assert not student.asked
    bank.resolve(["three"])
    assert len(bank._seen) == 6
    bank.resolve([f"word {i}" for i in range(10)])
    student.asked.clear()
    before = bank.current
    np.testing.assert_array_equal(bank.resolve(BANK).vectors, before.vectors)
    assert not student.asked
    bank.resolve(["one"])
    assert student.asked == ["a one wall"]
    bank.add("two")
    np.testing.assert_array_equal(bank.current.vectors[:4], before.vectors)


# Groups


def groups(bank: LabelBank) -> dict[str, str]:
    return dict(zip(bank.current.names, bank.current.groups, strict=True))


def test_groups_are_the_bundles_and_those_added(student: Student) -> None:
    bank = student.bank
    assert groups(bank) == GROUPS
    bank.add("purple", group="mixed")
    bank.add("mine", ["a white wall"], group="odd")
    bank.add("other")
    added = {"purple": "mixed", "mine": "odd", "other": ""}
    assert groups(bank) == GROUPS | added
    bank.remove("purple")
    assert groups(bank) == GROUPS | {"mine": "odd", "other": ""}


def test_a_label_that_comes_back_has_the_bundles_group_unless_told(student: Student) -> None:
    student.bank.remove("red")
    student.bank.remove("blue")
    student.bank.add("red")
    student.bank.add("blue", ["a blue wall"], group="sky")
    assert groups(student.bank) == GROUPS | {"blue": "sky"}


def test_replace_keeps_groups(student: Student) -> None:
    bank = student.bank
    bank.add("purple", group="mixed")
    bank.replace(["purple", "white", "red"])
    assert groups(bank) == {"purple": "mixed", "white": "", "red": "warm"}
    bank.replace({"blue": ["blue"], "purple": ["purple", "a purple wall"]})
    assert groups(bank) == {"blue": "cold", "purple": "mixed"}
    bank.replace(["red"])
    bank.replace(["purple"])
    assert groups(bank) == {"purple": ""}, "the app's own group leaves with the label"


def test_labels_asked_for_bring_their_groups(student: Student) -> None:
    student.bank.add("purple", group="mixed")
    student.bank.remove("yellow")
    found = student.bank.resolve(["yellow", "white", "purple", "red"])
    assert found.groups == ("warm", "", "mixed", "warm")


def test_groups_by_hand() -> None:
    names = ("a", "b", "c", "d", "e", "x")
    labels = LabelSet(names, np.zeros((6, 2), np.float32), (1, 0, 2, 0, 4, 8), ("x", "", "y", "x", "b", ""))
    grouping = labels.by_group
    assert grouping.names == ("x", "b", "y")  # in the order of their first labels; b and x are labels' own names too
    assert grouping.unknown == (9, 4, 2)
    assert grouping.place.tolist() == [0, 1, 2, 0, 1, 0]
    scores = np.array([[1, 2, 4, 8, 16, 32], [0, 0, 0, 0, 0, 1]], float)
    np.testing.assert_array_equal(grouping.summed(scores), [[41, 18, 4], [1, 0, 0]])
    assert grouping.summed(np.zeros((0, 6))).shape == (0, 3)
    nobody = LabelSet((), np.zeros((0, 2), np.float32), (), ()).by_group
    assert (nobody.names, nobody.unknown) == ((), ())


@pytest.mark.parametrize(("group", "came"), [(" ", "' '"), (None, "None"), (["a"], r"\['a'\]")])
def test_a_group_that_is_none_changes_nothing(student: Student, group: Any, came: str) -> None:
    before = student.bank.current
    with pytest.raises(FeedError, match=f"the group of 'purple' must be a text, or '' for none, but {came} came"):
        student.bank.add("purple", group=group)
    assert student.bank.current is before
