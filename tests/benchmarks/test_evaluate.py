from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import sdk
from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Cell, evaluate
from tests.bundles import build_colour_bundle, colour_frame
from tests.photos import picture, save

COLOURS = ("red", "green", "blue", "yellow", "white", "black")


@pytest.fixture(scope="module")
def evalset(tmp_path_factory: pytest.TempPathFactory) -> EvalSet:
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for index in range(24):
        paths.append(folder / f"{index}.png")
        frame = colour_frame(COLOURS[index % 6], 40, seed=index)
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    label = np.arange(24) % 6
    prompts = {colour: (f"a {colour} wall",) for colour in COLOURS}
    return EvalSet("colours", "test", COLOURS, prompts, tuple(paths), label, np.eye(6, dtype=bool)[label], ())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("on", ["ov:cpu", "ort:cpu"])
def test_a_bundle_that_recognises_scores_full(tmp_path: Path, evalset: EvalSet, on: str, precision: str) -> None:
    build_colour_bundle(tmp_path / "bundle")
    ticks: list[str] = []
    result = evaluate(tmp_path / "bundle", evalset, Cell(on, precision), ticks.append)
    # White and black are not in the bundle's bank: their labels are made from the set's prompts.
    assert result.correct.mean() == 1
    assert result.retrieval.mean_average_precision() == 1
    assert result.norm_error < 1e-5
    assert result.ran_on["image"][0] == precision
    assert ticks == [f"{on}/{precision}"] * 24


def test_labels_the_bundle_lacks_are_made_from_the_sets_prompts(tmp_path: Path, evalset: EvalSet) -> None:
    build_colour_bundle(tmp_path / "bundle")
    names = tuple(f"class {index}" for index in range(6))  # words the bundle's templates could do nothing with
    prompts = {name: evalset.prompts[colour] for name, colour in zip(names, COLOURS, strict=True)}
    renamed = EvalSet("c", "test", names, prompts, evalset.images, evalset.label, evalset.possible, ())
    assert evaluate(tmp_path / "bundle", renamed, Cell("ort:cpu", "fp32"), lambda _: None).correct.mean() == 1


def test_a_wrong_label_costs(tmp_path: Path, evalset: EvalSet) -> None:
    build_colour_bundle(tmp_path / "bundle")
    wrong = evalset.label.copy()
    wrong[:6] = (wrong[:6] + 1) % 6
    shifted = EvalSet("c", "test", COLOURS, evalset.prompts, evalset.images, wrong, evalset.possible, ())
    result = evaluate(tmp_path / "bundle", shifted, Cell("ort:cpu", "fp32"), lambda _: None)
    assert result.correct.mean() == 0.75


@pytest.mark.parametrize("on", ["ov:cpu", "ort:cpu"])
def test_questions_are_answered_in_the_order_of_the_set(tmp_path: Path, evalset: EvalSet, on: str) -> None:
    bundle = build_colour_bundle(tmp_path / "bundle").path
    questions = ((5, "what color is it?", "black"), (0, "is it red?", "yes"), (5, "is it red?", "yes"))
    asked = replace(evalset, questions=questions)
    result = evaluate(bundle, asked, Cell(on, "int8"), lambda _: None)
    assert result.answered is not None
    assert result.answered.tolist() == [True, True, False]  # the last answer is wrong in the set
    assert result.ran_on["fusion"][0] == "int8"


def test_nothing_is_asked_of_a_bundle_that_does_not_answer(tmp_path: Path, evalset: EvalSet) -> None:
    asked = replace(evalset, questions=((0, "is it red?", "yes"),))
    bundle = build_colour_bundle(tmp_path / "bundle", asks=False).path
    assert evaluate(bundle, asked, Cell("ort:cpu", "fp32"), lambda _: None).answered is None
    whole = build_colour_bundle(tmp_path / "whole").path
    assert evaluate(whole, evalset, Cell("ort:cpu", "fp32"), lambda _: None).answered is None


def test_large_photos_are_measured_as_the_sdk_reads_them(tmp_path: Path, evalset: EvalSet) -> None:
    """A large JPEG is decoded at a reduced scale when an app gives its path, so that is what accuracy must be of."""
    paths = tuple(save(tmp_path / f"{seed}.jpg", picture(seed, 300)) for seed in range(6))
    questions = tuple((place, "what color is it?", "red") for place in range(6))
    shown = replace(evalset, images=paths, label=np.arange(6), possible=np.eye(6, dtype=bool), questions=questions)
    bundle = build_colour_bundle(tmp_path / "bundle").path
    result = evaluate(bundle, shown, Cell("ort:cpu", "fp32"), lambda _: None)
    with sdk.load(bundle, on="ort:cpu", precision="fp32") as student:
        np.testing.assert_array_equal(result.images, [student.embed_images(path)[0] for path in paths])
        whole = student.embed_images([sdk.read_frame(path) for path in paths])
        answers = [student.ask(path, "what color is it?").label == "red" for path in paths]
    assert np.abs(result.images - whole).max() > 0
    assert result.answered is not None and result.answered.tolist() == answers
