from __future__ import annotations

import pytest

from compress.steps.quantize import Quantize, pick
from runtimes import RecipeError


def test_pick_takes_a_clearly_faster_one_that_is_near_enough() -> None:
    assert pick({"near": (0.001, 1.0), "fast": (0.005, 0.7), "wrong": (0.2, 0.3)}, 0.01) == "fast"


def test_pick_stays_with_the_nearest_when_the_clock_hardly_differs() -> None:
    assert pick({"near": (0.001, 1.0), "noise": (0.005, 0.95)}, 0.01) == "near"


def test_pick_takes_the_nearest_when_none_is_near_enough() -> None:
    assert pick({"a": (0.2, 0.3), "b": (0.05, 9.0)}, 0.01) == "b"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"quantizers": ("magic",)}, "there is no quantizer named 'magic'"),
        ({"quantizers": ()}, r"quantize\.quantizers is empty; choose from: nncf_ptq, ort_static"),
        ({"samples": 0}, "samples and held_out must be at least 1"),
    ],
)
def test_fields_are_checked(fields: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Quantize(**fields)  # type: ignore[arg-type]
