from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.evalset import EvalSet, read_evalset, some_of, write_evalset
from runtimes import RecipeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation folder of three images, one with an open label."""
    source = tmp_path / "source"
    source.mkdir()
    paths = []
    for index in range(3):
        paths.append(source / f"{index}.png")
        cv2.imwrite(str(paths[-1]), np.full((16, 16, 3), 80 * index, np.uint8))
    evalset = EvalSet(
        name="tiny",
        split="test",
        labels=("red", "blue"),
        prompts={"red": ("a red one", "red"), "blue": ("a blue one",)},
        images=tuple(paths),
        label=np.array([0, -1, 1]),
        possible=np.array([[True, False], [True, True], [False, True]]),
        questions=((0, "is it\u2028red?", "yes"), (2, "is it red?", "no")),
    )
    write_evalset(tmp_path / "eval", evalset)
    return tmp_path / "eval"


def test_round_trip(folder: Path) -> None:
    found = read_evalset(folder)
    assert (found.name, found.split, found.labels) == ("tiny", "test", ("red", "blue"))
    assert found.prompts == {"red": ("a red one", "red"), "blue": ("a blue one",)}
    assert found.label.tolist() == [0, -1, 1]
    assert found.possible.tolist() == [[True, False], [True, True], [False, True]]
    assert found.questions == ((0, "is it\u2028red?", "yes"), (2, "is it red?", "no"))
    assert [path.name for path in found.images] == ["0.png", "1.png", "2.png"]
    assert all(path.is_relative_to(folder) for path in found.images)


def test_groups_and_texts_round_trip(folder: Path, tmp_path: Path) -> None:
    plain = read_evalset(folder)
    assert plain.groups == plain.texts == ("", "")
    assert "group" not in (folder / "eval.json").read_text() and "text" not in (folder / "eval.json").read_text()
    some = dataclasses.replace(plain, groups=("warm", ""), texts=("", "Blå \u2028 and deep."))
    write_evalset(tmp_path / "again", some)
    found = read_evalset(tmp_path / "again")
    assert (found.groups, found.texts) == (some.groups, some.texts)
    assert some_of(found, 2).groups == some.groups


@pytest.mark.parametrize("name", ["group", "text"])
@pytest.mark.parametrize("value", [None, 5, " ", ["x"]])
def test_a_wrong_group_or_text_is_named(folder: Path, name: str, value: object) -> None:
    about = json.loads((folder / "eval.json").read_text())
    about["labels"][1][name] = value
    (folder / "eval.json").write_text(json.dumps(about))
    with pytest.raises(RecipeError, match=f"label 2: wanted its {name} as a text that is not blank, or none, got"):
        read_evalset(folder)


def test_a_missing_image_is_named(folder: Path) -> None:
    (folder / "images" / "1.png").unlink()
    with pytest.raises(RecipeError, match=r"lacks 1 of its 3 images, the first is 'images/1\.png'"):
        read_evalset(folder)


def test_an_image_outside_the_folder_counts_as_missing(folder: Path) -> None:
    lines = (folder / "images.jsonl").read_text().replace("images/1.png", "../source/1.png")
    (folder / "images.jsonl").write_text(lines)
    with pytest.raises(RecipeError, match="lacks 1 of its 3 images"):
        read_evalset(folder)


def test_not_an_evaluation_folder(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"is not an evaluation folder: eval\.json"):
        read_evalset(tmp_path)


def test_another_format(folder: Path) -> None:
    about = json.loads((folder / "eval.json").read_text())
    (folder / "eval.json").write_text(json.dumps({**about, "format": 2}))
    with pytest.raises(RecipeError, match="has evaluation format 2; this version reads 1"):
        read_evalset(folder)


@pytest.mark.parametrize(
    ("file", "line", "text"),
    [
        ("images.jsonl", '{"image": "images/0.png", "label": "green", "possible": []}', "with labels of eval.json"),
        ("images.jsonl", '{"image": 5, "label": "red", "possible": ["red"]}', "wanted the name of an image"),
        ("images.jsonl", '{"image": "images/0.png", "label": null, "possible": []}', "not listed before"),
        ("images.jsonl", '{"image": "images/7.png", "label": "red", "possible": ["blue"]}', "not among those it calls"),
        ("images.jsonl", "{", r"images\.jsonl:4 is not JSON"),
        ("questions.jsonl", '{"image": "images/9.png", "question": "?", "answer": "no"}', "wanted a known image"),
        (
            "questions.jsonl",
            '{"image": "images/0.png", "question": " ", "answer": "no"}',
            r"jsonl:3: wanted a question",
        ),
        ("questions.jsonl", '{"image": "images/0.png", "question": "?", "answer": 5}', r"jsonl:3: wanted a question"),
        ("images.jsonl", '{"image": "a\\u0000b", "label": "red", "possible": ["red"]}', "lacks 1 of its 4 images"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, file: str, line: str, text: str) -> None:
    with (folder / file).open("a") as out:
        out.write(line + "\n")
    with pytest.raises(RecipeError, match=text):
        read_evalset(folder)


def test_missing_lines_file(folder: Path) -> None:
    (folder / "images.jsonl").unlink()
    with pytest.raises(RecipeError, match=r"images\.jsonl cannot be read"):
        read_evalset(folder)


def test_questions_may_be_missing(folder: Path) -> None:
    (folder / "questions.jsonl").unlink()
    assert read_evalset(folder).questions == ()


def test_no_images(folder: Path) -> None:
    (folder / "images.jsonl").write_text("")
    with pytest.raises(RecipeError, match=r"images\.jsonl lists no image"):
        read_evalset(folder)


def test_some_of_a_set_keeps_its_questions(folder: Path) -> None:
    whole = read_evalset(folder)
    part = some_of(whole, 2)
    assert [path.name for path in part.images] == ["0.png", "2.png"]
    assert part.label.tolist() == [0, 1]
    assert part.possible.tolist() == [[True, False], [False, True]]
    assert [image for image, _, _ in part.questions] == [0, 1]
    assert some_of(whole, 3) is whole


def test_some_of_a_set_has_a_known_label(folder: Path) -> None:
    whole = read_evalset(folder)
    unknown = dataclasses.replace(whole, label=np.array([-1, 1, -1]))
    assert [path.name for path in some_of(unknown, 2).images] == ["1.png"]
    none = dataclasses.replace(whole, label=np.array([-1, -1, -1]))
    assert len(some_of(none, 2).images) == 2


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            [{"label": "red", "prompts": ["r"]}, {"label": "red", "prompts": ["r"]}],
            "label 2: wanted a text that is not",
        ),
        ([{"label": " ", "prompts": ["r"]}], "label 1: wanted a text that is not empty"),
        ([{"label": "red", "prompts": "a red one"}], "label 1: wanted its prompts as a list of texts"),
        ([{"label": "red", "prompts": []}], "label 1: wanted its prompts as a list of texts"),
        ([{"label": "red", "prompts": [""]}], "label 1: wanted its prompts as a list of texts"),
        ([], r"eval\.json lists no label; give at least one"),
    ],
)
def test_a_wrong_label_is_named(folder: Path, labels: list[object], text: str) -> None:
    about = json.loads((folder / "eval.json").read_text())
    (folder / "eval.json").write_text(json.dumps({**about, "labels": labels}))
    with pytest.raises(RecipeError, match=text):
        read_evalset(folder)
