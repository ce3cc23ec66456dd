"""Every output under its own name, whatever an engine makes of the graph: order, and outputs that are one tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import runtimes
from runtimes import FeedError

HERE = [str(target) for target in runtimes.targets()]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x float32 (N, 3) -> z = -x, a = x + x, b = a, c = x: not in the order of the alphabet."""
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Neg", ["x"], ["z"]),
        node("Add", ["x", "x"], ["a"]),
        node("Identity", ["a"], ["b"]),
        node("Identity", ["x"], ["c"]),
    ]
    made = helper.make_graph(
        nodes,
        "ports",
        [value("x", TensorProto.FLOAT, ["batch", 3])],
        [value(name, TensorProto.FLOAT, ["batch", 3]) for name in "zabc"],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("graph") / "ports.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("on", HERE)
def test_each_output_comes_under_its_name(graph: Path, on: str, batch: int | None) -> None:
    rows = np.random.default_rng(0).standard_normal((batch or 4, 3)).astype(np.float32)
    with runtimes.open_session(on, graph, batch=batch, precision="f32") as session:
        got = session.run({"x": rows})
    assert got.keys() == set("zabc") == session.outputs.keys()
    for name, wanted in (("z", -rows), ("a", 2 * rows), ("b", 2 * rows), ("c", rows)):
        np.testing.assert_array_equal(got[name], wanted)


@pytest.mark.parametrize("shape", [(2, 3), (1, 4), (1, 3, 1), (3,), (), (1, 0), (0, 3)])
@pytest.mark.parametrize("on", HERE)
def test_a_feed_of_another_shape_is_refused(graph: Path, on: str, shape: tuple[int, ...]) -> None:
    with (
        runtimes.open_session(on, graph) as session,
        pytest.raises(FeedError, match=r"input 'x' takes float32\(1, 3\) with no empty dimension, but float32\("),
    ):
        session.run({"x": np.zeros(shape, np.float32)})
