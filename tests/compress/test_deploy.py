from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.data import Corpus, Label, Question, Split
from compress.deploy import evalset


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
