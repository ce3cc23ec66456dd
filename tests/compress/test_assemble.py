from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import runtimes
from compress.assemble import Replayed, order_families, replay_everywhere, separation, tolerances
from compress.engines import FAMILIES, cpu_targets, parse_variant
from runtimes import GateFailed, Unavailable
from tests.bundles import SIZE, build, colour_frame

FRAMES = np.stack([colour_frame(c, SIZE) for c in ("red", "green", "blue", "white")])
FEEDS = {"image": FRAMES}


@pytest.fixture(scope="module", params=["fp32", "int8"])
def replayed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    path: Path = tmp_path_factory.mktemp("graph") / "image.onnx"
    path.write_bytes(build("image", request.param).SerializeToString())
    return replay_everywhere(path, FEEDS, cpu_targets())


def test_every_engine_and_arithmetic_is_measured(replayed: Replayed) -> None:
    assert replayed.outputs.shape[0] == 4
    assert set(replayed.milliseconds) == set(FAMILIES)
    assert len(replayed.distance) >= 1
    assert max(replayed.distance.values()) < 0.01


def test_tolerances_let_engines_pass_and_another_graph_fail(replayed: Replayed) -> None:
    allowed = tolerances("image", replayed, FEEDS)
    assert "*" in allowed
    for compute, distance in replayed.distance.items():
        assert distance <= allowed[compute] <= separation(replayed.outputs, FEEDS) / 2


def test_tolerance_never_reaches_another_sample() -> None:
    """Two samples 0.004 apart: however much room there is, one may not be answered for the other."""
    angle = np.arccos(1 - 0.004)
    outputs = np.array([[1, 0], [np.cos(angle), np.sin(angle)]], np.float32)
    feeds = {"image": np.arange(2)[:, None]}
    allowed = tolerances("image int8", Replayed(outputs, {"int8+f32": 0.0015}, {"ov": 1.0}), feeds)
    assert allowed["int8+f32"] == pytest.approx(0.002, rel=1e-3)
    assert allowed["*"] == pytest.approx(0.002, rel=1e-3)


def test_engines_that_disagree_too_much_are_refused() -> None:
    outputs = np.eye(3, dtype=np.float32)
    feeds = {"image": np.arange(3)[:, None]}
    with pytest.raises(
        GateFailed, match=r"engines disagree on text int8 by 0\.6, more than half the distance .*\(0\.5\)"
    ):
        tolerances("text int8", Replayed(outputs, {"int8+f32": 0.6}, {"ov": 1.0}), feeds)


def test_the_same_feed_twice_is_one_sample() -> None:
    outputs = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert separation(outputs, {"image": np.array([[1], [1], [2]])}) == pytest.approx(1)
    assert separation(outputs[:1], {"image": np.array([[1]])}) == 2


def test_families_are_ordered_by_clear_differences_only() -> None:
    assert order_families(("ov", "ort"), {"ov": 1.0, "ort": 0.5}) == ("ort", "ov")
    assert order_families(("ov", "ort"), {"ov": 1.0, "ort": 0.95}) == ("ov", "ort")
    assert order_families(("ov", "trt"), {"ov": 1.0}) == ("ov", "trt")


def test_variant_names_say_precision_and_family() -> None:
    assert parse_variant("int8") == ("int8", FAMILIES)
    assert parse_variant("fp16-trt") == ("fp16", ("trt",))


def test_without_an_engine_nothing_is_packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtimes, "targets", tuple)
    with pytest.raises(Unavailable, match=r"need an engine; run: pip install 'edge-pupil\[openvino\]'"):
        cpu_targets()
    path = tmp_path / "image.onnx"
    path.write_bytes(build("image", "fp32").SerializeToString())
    with pytest.raises(Unavailable, match=r"no engine here opens image\.onnx"):
        replay_everywhere(path, FEEDS, [])
