"""What easy-VQA's questions say about an image, by hand and on the package itself."""

import numpy as np
import pytest

from compress.data import Corpus, Question, open_dataset
from compress.data.easy_vqa import PAIRS, allowed, captions, derive, mentioned, truth
from runtimes import RecipeError


def pairs(flags: np.ndarray) -> set[str]:
    return {" ".join(pair) for pair, flag in zip(PAIRS, flags, strict=True) if flag}


def left(*asked: tuple[str, str]) -> set[str]:
    return pairs(derive([Question(0, text, answer) for text, answer in asked], 1)[0])


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return open_dataset("easy_vqa", {}).load()


def test_an_answer_that_names_a_colour_and_one_that_names_a_shape_leave_one_pair() -> None:
    assert left(("what color is the shape?", "blue"), ("what shape is present?", "circle")) == {"blue circle"}


def test_one_question_can_tell_both() -> None:
    assert left(("what is the color of the triangle?", "teal")) == {"teal triangle"}
    assert left(("what is the red shape?", "circle")) == {"red circle"}


def test_yes_and_no() -> None:
    assert left(("is there a circle?", "yes")) == {f"{c} circle" for c in {p[0] for p in PAIRS}}
    assert len(left(("is a red shape present?", "no"))) == 21


@pytest.mark.parametrize("text", ["is no red shape present?", "does the image not contain a red shape?"])
def test_negations_turn_the_answer_round(text: str) -> None:
    assert left((text, "no")) == {"red circle", "red rectangle", "red triangle"}
    assert not any("red" in pair for pair in left((text, "yes")))


def test_elimination_needs_no_positive_answer() -> None:
    asked = [("is there a circle?", "no"), ("is no triangle present?", "yes"), ("is there a gray shape?", "yes")]
    assert left(*asked) == {"gray rectangle"}


def test_an_unknown_answer_is_an_error() -> None:
    said = r"^easy-vqa answers are a colour, a shape, yes or no; got 'pink' to 'what color is the shape\?'$"
    with pytest.raises(ValueError, match=said):
        allowed("what color is the shape?", "pink")


def test_captions_are_true_false_or_unknown() -> None:
    meanings = [mentioned("blue circle"), mentioned("blue"), mentioned("circle"), mentioned("red")]
    possible = np.stack([mentioned("blue circle"), mentioned("blue"), np.zeros(24, bool)])
    assert truth(possible, meanings).tolist() == [[1, 1, 1, 0], [-1, 1, -1, 0], [-1, -1, -1, -1]]
    assert len(captions()) == 35


def test_the_package_is_determined_as_far_as_it_can_be(corpus: Corpus) -> None:
    labelled = [int((split.label >= 0).sum()) for split in (corpus.train, corpus.val, corpus.test)]
    assert labelled[0] + labelled[1] == 3578
    assert labelled[2] == 888
    for split in (corpus.train, corpus.val, corpus.test):
        assert split.possible.any(1).all(), "some questions contradict each other"
        assert (split.label[split.label >= 0] == split.possible.argmax(1)[split.label >= 0]).all()
        assert split.matches.shape == (len(split.images), 35)


def test_no_image_is_in_two_splits(corpus: Corpus) -> None:
    splits = [set(split.images) for split in (corpus.train, corpus.val, corpus.test)]
    assert [len(split) for split in splits] == [3600, 400, 1000]
    assert len(set.union(*splits)) == 5000
    assert all(path.parent.parent.name == "test" for path in corpus.test.images)
    assert not any(path.parent.parent.name == "test" for path in (*corpus.train.images, *corpus.val.images))


def test_questions_follow_their_image_into_its_split(corpus: Corpus) -> None:
    for split in (corpus.train, corpus.val):
        again = derive(split.questions, len(split.images))
        assert np.array_equal(again, split.possible)


def test_the_fingerprint_follows_the_fields() -> None:
    assert open_dataset("easy_vqa", {}).fingerprint() == open_dataset("easy_vqa", {"val_images": 400}).fingerprint()
    assert open_dataset("easy_vqa", {}).fingerprint() != open_dataset("easy_vqa", {"split_seed": 1}).fingerprint()


def test_bad_fields_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"val_imges.*did you mean 'val_images'"):
        open_dataset("easy_vqa", {"val_imges": 3})
    for few in (0, 5, 49, 2001):
        with pytest.raises(RecipeError, match=rf"val_images must lie in 50\.\.2000 .* got {few}"):
            open_dataset("easy_vqa", {"val_images": few})


def test_a_part_of_the_test_split_is_its_beginning(corpus: Corpus) -> None:
    assert (len(corpus.test.images), len(corpus.test.questions), (corpus.test.label >= 0).sum()) == (1000, 9673, 888)
    part = open_dataset("easy_vqa", {"test_images": 250}).load().test
    assert part.images == corpus.test.images[:250]
    assert part.questions == tuple(question for question in corpus.test.questions if question.image < 250)
    for few in (49, 1001):
        with pytest.raises(RecipeError, match=rf"data\.test_images must lie in 50\.\.1000 \(of 1,000\), got {few}"):
            open_dataset("easy_vqa", {"test_images": few})


def test_a_batch_larger_than_the_train_images_is_refused(corpus: Corpus) -> None:
    assert corpus.rounds(3600, "teach") == 1
    with pytest.raises(RecipeError, match=r"teach\.batch is 3601, and easy_vqa has 3600 train images: not one step"):
        corpus.rounds(3601, "teach")
