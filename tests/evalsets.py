"""A tiny evaluation set that the bundle of tests/bundles.py gets wholly right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from benchmarks.evalset import EvalSet
from tests.bundles import COLOURS, colour_frame

COUNT = 24
GROUPS = ("warm", "cold", "cold", "warm", "", "")


def colour_evalset(folder: Path) -> EvalSet:
    """COUNT images of six colours, each with two questions; files in `folder`."""
    names = tuple(COLOURS)
    paths, questions = [], []
    for index in range(COUNT):
        colour = names[index % 6]
        paths.append(folder / f"{index}.png")
        frame = colour_frame(colour, 40, seed=index)
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        questions.append((index, "what color is it?", colour))
        questions.append((index, "is it red?", "yes" if colour == "red" else "no"))
    label = np.arange(COUNT) % 6
    possible = np.eye(6, dtype=bool)[label]
    prompts = {name: (f"a {name} wall",) for name in names}
    return EvalSet("colours", "test", names, prompts, tuple(paths), label, possible, tuple(questions))


def shop_evalset(folder: Path) -> EvalSet:
    """The same as photos of a shop: no questions, but groups, and a product text for all colours but black."""
    asked = colour_evalset(folder)
    texts = tuple("" if name == "black" else f"a {name} wall" for name in asked.labels)
    return dataclasses.replace(asked, questions=(), groups=GROUPS, texts=texts)
