from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import runtimes
from compress.saturation import OPERATORS, saturating, saturating_sums, saturation_damage


def conv_graph(path: Path, weight: int, zero: int = 0) -> Path:
    """uint8 (N, 8, 8, 3) through one Q/DQ convolution, 3x3, stride 2, padded, all weights `weight`, then pooled."""
    node = helper.make_node
    weights = {
        "scale": np.array(1 / 255, np.float32),
        "kernel": np.full((4, 3, 3, 3), weight, np.int8),
        "kernel.scale": np.full(4, 0.01, np.float32),
        "kernel.zero": np.zeros(4, np.int8),
        "x.scale": np.array(1 / 255, np.float32),
        "x.zero": np.array(zero, np.uint8),
        "bias": np.array([-20.0, 0, 3, 40], np.float32),
    }
    nodes = [
        node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "scale"], ["unit"]),
        node("Transpose", ["unit"], ["x"], perm=[0, 3, 1, 2]),
        node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["q"]),
        node("DequantizeLinear", ["q", "x.scale", "x.zero"], ["dq"]),
        node("DequantizeLinear", ["kernel", "kernel.scale", "kernel.zero"], ["w"], axis=0),
        node("Conv", ["dq", "w", "bias"], ["conv"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("ReduceMean", ["conv"], ["embedding"], axes=[2, 3], keepdims=0),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("image", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [value("embedding", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def test_pairs_saturate_at_sixteen_bits() -> None:
    levels = torch.tensor([[255], [255], [255]])
    assert saturating_sums(levels, torch.tensor([[127, 127, 127]])).item() == 32767 + 255 * 127
    assert saturating_sums(levels, torch.tensor([[-128, -128, 0]])).item() == -32768
    assert saturating_sums(levels, torch.tensor([[127, -127, 1]])).item() == 255


@pytest.mark.parametrize("zero", [0, 100])
def test_small_weights_do_no_damage_and_the_emulation_is_the_engines_answer(tmp_path: Path, zero: int) -> None:
    """With |w| <= 63 no pair can overflow: saturating and exact arithmetic must agree, padding and zero point too."""
    path = conv_graph(tmp_path / "g.onnx", 60, zero)
    frames = [np.full((8, 8, 3), 255, np.uint8), np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)]
    assert max(saturation_damage(path, frames)) < 1e-6
    emulated = ReferenceEvaluator(saturating(onnx.load(str(path))), new_ops=OPERATORS)
    with runtimes.open_session("ort:cpu", path) as session:
        for frame in frames:
            wanted = session.run({"image": frame[None]})["embedding"]
            assert emulated.run(None, {"image": frame[None]})[0] == pytest.approx(wanted, abs=0.01)


def test_large_weights_damage_bright_frames_and_spare_dark_ones(tmp_path: Path) -> None:
    path = conv_graph(tmp_path / "g.onnx", 127)
    white, dark = np.full((8, 8, 3), 255, np.uint8), np.full((8, 8, 3), 60, np.uint8)
    damage = saturation_damage(path, [white, dark])
    assert damage[0] > 0.001
    assert damage[1] < 1e-6


def test_only_full_convolutions_of_quantised_data_are_replaced(tmp_path: Path) -> None:
    model = onnx.load(str(conv_graph(tmp_path / "g.onnx", 127)))
    assert [n.op_type for n in saturating(model).graph.node].count("SaturatingConv") == 1
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    conv.attribute.append(helper.make_attribute("group", 3))
    assert "SaturatingConv" not in {n.op_type for n in saturating(model).graph.node}
    assert "Conv" in {n.op_type for n in model.graph.node}, "the original is left as it was"
