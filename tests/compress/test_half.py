"""Float graphs in half precision: the same answers, nothing of float32 left but at the ports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtimes
from compress.export import save_graph
from compress.half import to_half
from runtimes._trt_graph import read_graph
from sdk.onnx_scan import check_onnx
from tests.bundles import build
from tests.trt_graphs import graph, node, qdq


def dtypes(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer}


def answers(model: onnx.ModelProto, folder: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    path = folder / "graph.onnx"
    save_graph(model, path)
    with runtimes.open_session("ort:cpu", path, batch=None) as session:
        return session.run(feeds)


def feeds_of(tower: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    ports = {port.name: port.type.tensor_type for port in build(tower, "fp32").graph.input}
    made = {}
    for name, kind in ports.items():
        shape = (4, *(dim.dim_value for dim in kind.shape.dim[1:]))
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype == np.float32:
            made[name] = rng.normal(size=shape).astype(np.float32)
        else:
            made[name] = rng.integers(0, 256 if dtype == np.uint8 else 2, shape, dtype=dtype)
    return made


@pytest.mark.parametrize("tower", ["image", "text", "fusion"])
def test_a_tower_in_half_answers_alike(tmp_path: Path, tower: str) -> None:
    source = build(tower, "fp32")
    before = source.SerializeToString()
    made = to_half(source)
    assert source.SerializeToString() == before
    assert TensorProto.FLOAT not in dtypes(made)
    assert TensorProto.FLOAT16 in dtypes(made)
    feeds = feeds_of(tower)
    wanted, got = answers(source, tmp_path, feeds), answers(made, tmp_path, feeds)
    assert {name: array.dtype for name, array in got.items()} == {name: array.dtype for name, array in wanted.items()}
    for name, array in wanted.items():
        assert np.abs(got[name] - array).max() < 1e-2 * np.abs(array).max()
    facts = check_onnx(tmp_path / "graph.onnx")
    assert (facts.opset, facts.ir_version) == (19, 9)
    assert read_graph(tmp_path / "graph.onnx").compute == "f16"


def test_what_is_beyond_half_stays_far_and_finite(tmp_path: Path) -> None:
    masks = np.array([-1e9, np.finfo(np.float32).min, 1e6, 70.0], np.float32)
    four = ["batch", 4]
    source = graph(
        [node("Add", ["x", "m"], ["y"])], {"m": masks}, ("x", TensorProto.FLOAT, four), ("y", TensorProto.FLOAT, four)
    )
    made = to_half(source)
    assert numpy_helper.to_array(made.graph.initializer[0]).tolist() == [-30000, -30000, 30000, 70]
    got = answers(made, tmp_path, {"x": np.full((1, 4), -20, np.float32)})["y"]
    assert np.isfinite(got).all()


def test_a_tensor_in_an_attribute_is_halved_too() -> None:
    one = helper.make_tensor("", TensorProto.FLOAT, [1], [1.0])
    nodes = [node("ConstantOfShape", ["size"], ["c"], value=one), node("Add", ["x", "c"], ["y"])]
    made = to_half(graph(nodes, {"size": np.array([4], np.int64)}, ("x", TensorProto.FLOAT, ["batch", 4])))
    (value,) = [each.attribute[0].t for each in made.graph.node if each.op_type == "ConstantOfShape"]
    assert value.data_type == TensorProto.FLOAT16


def test_scales_below_half_are_raised_and_weights_rounded_again(tmp_path: Path) -> None:
    """A channel of tiny weights, in float 1e-7 a step, which half would make 0; TensorRT refuses that."""
    source = qdq(np.int8(0))
    tensors = {tensor.name: tensor for tensor in source.graph.initializer}
    scales = np.array([1e-7, 4e-5, 0.01, 6.2e-5], np.float32)
    tensors["w_scale"].CopyFrom(numpy_helper.from_array(scales, "w_scale"))
    old = numpy_helper.to_array(tensors["w"]) * scales.reshape(-1, 1, 1, 1)
    made = {tensor.name: numpy_helper.to_array(tensor) for tensor in to_half(source).graph.initializer}
    assert made["w_scale"].dtype == np.float16
    assert (made["w_scale"] >= 2**-14).all()
    new = made["w"] * made["w_scale"].astype(np.float32).reshape(-1, 1, 1, 1)
    # Half a step of the scale, and half's own rounding of the scale.
    limit = np.maximum(scales, 2**-14) / 2 + np.abs(old).max(axis=(1, 2, 3)) * 2**-11
    assert (np.abs(new - old).max(axis=(1, 2, 3)) <= np.where(scales < 2**-14, limit, limit - scales / 2)).all()
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)}
    wanted, got = answers(source, tmp_path, feeds)["y"], answers(to_half(source), tmp_path, feeds)["y"]
    assert np.abs(got - wanted).max() < 0.01 * np.abs(wanted).max()
    assert read_graph(tmp_path / "graph.onnx").compute == "int8+f16"
