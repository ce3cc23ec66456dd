"""Rows of an evaluation set for a model's graphs, here those of the colour bundle."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import runtimes
from benchmarks.evalset import EvalSet
from compress.draft import ImageSpec, ModelFiles, TextSpec
from compress.feeds import eval_rows
from tests.bundles import DIM, LENGTH, SIZE, build, colour_frame, tokenizer_json

COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture
def evalset(tmp_path: Path) -> EvalSet:
    paths = tuple(tmp_path / f"{index}.png" for index in range(8))
    for index, path in enumerate(paths):
        frame = colour_frame(COLOURS[index % 4], 40, seed=index)
        cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    label = np.arange(8) % 4
    asked = [(image, text, "yes") for image in (1, 3, 5, 7) for text in ("red", "a green wall", "blue")]
    prompts = {colour: (f"a {colour} wall",) for colour in COLOURS}
    return EvalSet("colours", "val", COLOURS, prompts, paths, label, np.eye(4, dtype=bool)[label], tuple(asked))


def model(folder: Path, *towers: str) -> ModelFiles:
    graphs = {}
    for tower in towers:
        path = folder / f"{tower}.fp32.onnx"
        path.write_bytes(build(tower, "fp32").SerializeToString())
        graphs[tower] = {"fp32": path}
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer_json(), encoding="utf-8")
    image = ImageSpec("x", {}, folder, 0, SIZE, (0.0,) * 3, (1.0,) * 3)
    return ModelFiles(image, TextSpec("x", {}, folder, 0, LENGTH, tokenizer), DIM, 1.0, graphs=graphs)


def test_every_tower_gets_rows_that_its_graph_takes(tmp_path: Path, evalset: EvalSet) -> None:
    files = model(tmp_path, "image", "text", "fusion")
    target = runtimes.parse_target("ort:cpu")
    rows = eval_rows(files, evalset, [0, 3, 5], target)
    assert {tower: len(found) for tower, found in rows.items()} == {"image": 3, "text": 6, "fusion": 6}
    outputs = {}
    for tower, found in rows.items():
        with runtimes.open_session(target, files.graphs[tower]["fp32"]) as session:
            assert session.inputs.keys() == found[0].keys()
            outputs[tower] = [session.run(row) for row in found]
    # Images 3 and 5 are asked about, with the tokens of just those images.
    for number, place in enumerate((1, 1, 1, 2, 2, 2)):
        assert np.array_equal(rows["fusion"][number]["image"], outputs["image"][place]["tokens"])
    texts = [row["ids"].tolist() for row in rows["text"]]
    assert len({str(ids) for ids in texts}) == 6, "four prompts, and the two questions that are no prompts"


def test_no_fusion_and_no_questions_make_no_fusion_rows(tmp_path: Path, evalset: EvalSet) -> None:
    target = runtimes.parse_target("ort:cpu")
    without = eval_rows(model(tmp_path, "image", "text"), evalset, range(8), target)
    assert {tower: len(found) for tower, found in without.items()} == {"image": 8, "text": 4}
    asks = model(tmp_path, "image", "text", "fusion")
    assert set(eval_rows(asks, evalset, [0, 2], target)) == {"image", "text"}
