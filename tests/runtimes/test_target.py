from __future__ import annotations

import re

import pytest

import runtimes
from runtimes import Target, Unavailable, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("ov:cpu", Target("ov", "cpu")),
        ("ov:gpu.1", Target("ov", "gpu", 1)),
        ("ort:cuda.0", Target("ort", "cuda", 0)),
        ("trt:cuda.12", Target("trt", "cuda", 12)),
        (" OV:Cpu\n", Target("ov", "cpu")),
    ],
)
def test_parses(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["ov:cpu", "ov:gpu.1", "ort:cuda.0"])
def test_is_written_as_it_was_read(text: str) -> None:
    target = parse_target(text)
    assert str(target) == text
    assert target.place == text.split(":")[1]


@pytest.mark.parametrize(
    "text", ["", "ov", "ov:", ":cpu", "ov cpu", "ov:cpu:0", "ov:gpu.", "ov:gpu.x", "ov:gpu.1234", "ov:gpu.-1", "ov/cpu"]
)
def test_refuses_what_has_another_form(text: str) -> None:
    with pytest.raises(Unavailable, match=re.escape(f"{text!r} is not a target; write runtime:device[.index]")):
        parse_target(text)
    with pytest.raises(Unavailable, match="is not a target"):
        runtimes.open_session(text, "any.onnx")
