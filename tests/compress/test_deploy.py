from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.data import Corpus, Label, Question, Split
from compress.deploy import contents, evalset
from compress.draft import DatasetSpec, Draft
from sdk.frames import read_frame
from sdk.resize import prepare
from tests.photos import picture, save
from tests.small_models import save_small, small_model


def test_an_evaluation_set_holds_what_the_data_says_of_its_labels() -> None:
    labels = (
        Label("oat milk", ("a carton of oat milk",), "Oat drink. Contains gluten.", "milk"),
        Label("kiwi", ("a kiwi", "a green kiwi")),
    )
    questions = (Question(1, "is it a fruit?", "yes"),)
    images = (Path("a.jpg"), Path("b.jpg"))
    split = Split(images, np.array([0, 1]), np.eye(2, dtype=bool), np.eye(2, dtype=np.int8), questions)
    captions = (("oat milk",), ("kiwi",))
    corpus = Corpus("shop", labels, captions, ("{}",), split, split, split, "MIT", "0" * 64, (), ("yes", "no"))
    made = evalset(corpus, "val")
    assert (made.name, made.split, made.images) == ("shop", "val", images)
    assert made.labels == ("oat milk", "kiwi")
    assert made.prompts["kiwi"] == ("a kiwi", "a green kiwi")
    assert made.groups == ("milk", "")
    assert made.texts == ("Oat drink. Contains gluten.", "")
    assert made.questions == ((1, "is it a fruit?", "yes"),)


def test_photos_for_golden_samples_are_no_larger_than_the_model(tmp_path: Path) -> None:
    images = tuple(save(tmp_path / f"{seed}.jpg", picture(seed, side=500)) for seed in range(8))
    split = Split(images, np.arange(8), np.eye(8, dtype=bool), np.eye(8, dtype=np.int8), ())
    labels = tuple(Label(f"thing {number}", (f"thing {number}",)) for number in range(8))
    corpus = Corpus("shop", labels, (("a thing",),), ("{}",), split, split, split, "MIT", "0" * 64, (), ())
    student = save_small(small_model(), tmp_path / "m")
    said = contents(Draft(tmp_path, tmp_path, 0, DatasetSpec("shop"), student=student), corpus, "student", 2)
    size = student.image.size
    wanted = [prepare(read_frame(path, least=2 * size), size) for path in images]
    assert len(said.frames) == 8
    assert sorted(frame.tobytes() for frame in said.frames) == sorted(frame.tobytes() for frame in wanted)
