"""Tiny graphs that TensorRT takes or refuses, for the check that does without it and for TensorRT itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import runtimes

Port = tuple[str, int, list[Any] | None]
IMAGE: Port = ("x", TensorProto.FLOAT, ["batch", 4, 8, 8])
node = helper.make_node


def graph(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    source: Port = IMAGE,
    out: Port = ("y", TensorProto.FLOAT, None),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of these nodes from `x` to `y`."""
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*source)],
        [helper.make_tensor_value_info(*out)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8 if opset < 19 else 9)


ZERO = np.int8(0)


def qdq(
    zero: Any, weight_zero: Any = ZERO, float_type: type = np.float32, opset: int = 17, bias: bool = False
) -> onnx.ModelProto:
    """A convolution whose input and weights are rounded: per tensor, and per channel."""
    weights = np.random.default_rng(0).integers(-127, 128, (4, 4, 3, 3)).astype(np.asarray(weight_zero).dtype)
    constants: dict[str, Any] = {
        "scale": np.array(0.02, float_type),
        "zero": np.asarray(zero),
        "w": weights,
        "w_scale": np.full(4, 0.01, float_type),
        "w_zero": np.full(4, weight_zero),
    }
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"], axis=0),
    ]
    inputs = ["d", "wd"]
    if bias:
        constants |= {"b": np.arange(4, dtype=np.int32), "b_scale": np.full(4, 2e-4, float_type)}
        constants |= {"b_zero": np.zeros(4, np.int32)}
        nodes.append(node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bd"], axis=0))
        inputs.append("bd")
    kind = TensorProto.FLOAT if float_type is np.float32 else TensorProto.FLOAT16
    nodes.append(node("Conv", inputs, ["y"]))
    return graph(nodes, constants, ("x", kind, ["batch", 4, 8, 8]), ("y", kind, ["batch", 4, 6, 6]), opset)


def _pair(scale: float = 0.1, zero: str = "zero") -> onnx.ModelProto:
    names = ["scale", zero] if zero else ["scale"]
    nodes = [node("QuantizeLinear", ["x", *names], ["q"]), node("DequantizeLinear", ["q", *names], ["y"])]
    constants: dict[str, Any] = {"scale": np.array(scale, np.float32)} | ({zero: np.int8(0)} if zero else {})
    return graph(nodes, constants)


def _table(rounds: bool) -> onnx.ModelProto:
    """Rows of an int8 table by id: scaled before they are looked up, or cast after."""
    table = {"table": np.ones((9, 4), np.int8)}
    ids: Port = ("x", TensorProto.INT64, ["batch", 4])
    if rounds:
        scale = {"scale": np.ones(9, np.float32), "zero": np.zeros(9, np.int8)}
        nodes = [
            node("DequantizeLinear", ["table", "scale", "zero"], ["rows"], axis=0),
            node("Gather", ["rows", "x"], ["y"]),
        ]
        return graph(nodes, table | scale, ids)
    nodes = [node("Gather", ["table", "x"], ["rows"]), node("Cast", ["rows"], ["y"], to=TensorProto.FLOAT)]
    return graph(nodes, table, ids)


def _computed(which: str) -> onnx.ModelProto:
    """Q/DQ whose scale or zero point is computed."""
    model = _pair()
    made = {
        "scale": node("Exp", ["source"], ["scale"]),
        "zero": node("Cast", ["source"], ["zero"], to=TensorProto.INT8),
    }
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == which)
    model.graph.initializer.remove(stored)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "source"))
    model.graph.node.insert(0, made[which])
    return model


def _matmul() -> onnx.ModelProto:
    """A product with an int8 weight that a Transpose turns, and one in float beside it."""
    constants = {
        "scale": np.array(0.1, np.float32),
        "zero": np.int8(0),
        "w": np.ones((8, 8), np.int8),
        "f": np.ones((8, 8), np.float32),
    }
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        node("DequantizeLinear", ["w", "scale", "zero"], ["wd"]),
        node("Transpose", ["wd"], ["wt"], perm=[1, 0]),
        node("MatMul", ["d", "wt"], ["m"]),
        node("MatMul", ["m", "f"], ["y"]),
    ]
    return graph(nodes, constants)


def _bytes(reader: str) -> onnx.ModelProto:
    """A uint8 input that this operator reads first."""
    first = node("Cast", ["x"], ["t"], to=TensorProto.FLOAT16) if reader == "Cast" else node(reader, ["x"], ["t"])
    second = node("Cast", ["t"], ["y"], to=TensorProto.FLOAT)
    return graph([first, second], {}, ("x", TensorProto.UINT8, ["batch", 4]))


def _domain() -> onnx.ModelProto:
    model = graph([node("Gelu", ["x"], ["y"], domain="com.microsoft")], {})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


Case = Callable[[], tuple[onnx.ModelProto, str]]
# name -> (graph, what it computes in)
ACCEPTED: dict[str, Case] = {
    "symmetric": lambda: (qdq(np.int8(0)), "int8+f32"),
    "half": lambda: (qdq(np.int8(0), float_type=np.float16, opset=19), "int8+f16"),
    "product": lambda: (_matmul(), "int8+f32"),
    "table, scaled first": lambda: (_table(rounds=True), "f32"),
    "bytes, cast first": lambda: (_bytes("Cast"), "f16"),
    "opset 22": lambda: (graph([node("Relu", ["x"], ["y"])], {}, opset=22), "f32"),
    "opset 9": lambda: (graph([node("Relu", ["x"], ["y"])], {}, opset=9), "f32"),
}
# name -> (graph, what the check says of it)
REFUSED: dict[str, Case] = {
    "uint8 activations": lambda: (qdq(np.uint8(128)), "QuantizeLinear of 'x' rounds to uint8"),
    "asymmetric": lambda: (qdq(np.int8(3)), "QuantizeLinear of 'x' is asymmetric, and its zero point must be 0"),
    "asymmetric weights": lambda: (qdq(np.int8(0), np.int8(1)), "DequantizeLinear of 'w' is asymmetric"),
    "int32 bias": lambda: (qdq(np.int8(0), bias=True), "DequantizeLinear of 'b' rounds to int32"),
    "a scale of 0": lambda: (_pair(0.0), "QuantizeLinear of 'x' has a scale that is not above 0"),
    "a scale below 0": lambda: (_pair(-1.0), "DequantizeLinear of 'q' has a scale that is not above 0"),
    "table, cast after": lambda: (_table(rounds=False), "the int8 constant 'table' is read by something else"),
    "bytes, moved first": lambda: (_bytes("Transpose"), "its uint8 input 'x' is read by Transpose, and only Cast may"),
    "unknown operator": lambda: (graph([node("Det", ["x"], ["y"])], {}), "the operator Det is unknown to it"),
    "uint16 input": lambda: (
        graph([node("Cast", ["x"], ["y"], to=1)], {}, ("x", TensorProto.UINT16, ["batch", 4])),
        "its input 'x' is of uint16, which it has not",
    ),
}
# What TensorRT for RTX takes, and we do not: it computes something else than the graph says, or nobody promises it.
STRICTER: dict[str, Case] = {
    "a computed scale": lambda: (_computed("scale"), "QuantizeLinear of 'x' has a scale that is no constant"),
    "a computed zero point": lambda: (_computed("zero"), "of 'x' has a zero point that is no constant"),
    "another domain": lambda: (_domain(), "the operator com.microsoft.Gelu is unknown to it"),
    "uint8 with zero point 0": lambda: (qdq(np.uint8(0)), "QuantizeLinear of 'x' rounds to uint8"),
    "uint8 weights": lambda: (qdq(np.int8(0), np.uint8(0)), "DequantizeLinear of 'w' rounds to uint8"),
    "no zero point": lambda: (_pair(zero=""), "rounds to uint8, as no zero point says otherwise"),
    "free height": lambda: (
        graph([node("Relu", ["x"], ["y"])], {}, ("x", TensorProto.FLOAT, ["batch", 4, "height", 8])),
        "its input 'x' has a free dimension besides the first, the batch",
    ),
    "opset 8": lambda: (graph([node("Relu", ["x"], ["y"])], {}, opset=8), "its opset is 8, and 9 to 22 are read"),
    "opset 23": lambda: (graph([node("Relu", ["x"], ["y"])], {}, opset=23), "its opset is 23, and 9 to 22 are read"),
    "a strange output": lambda: (
        graph([node("Cast", ["x"], ["y"], to=11)], {}, out=("y", TensorProto.DOUBLE, None)),
        "its output 'y' is of float64, which it has not",
    ),
}


def tower_feeds(source: Path, count: int) -> list[dict[str, np.ndarray]]:
    """Rows that a tower takes."""
    rng = np.random.default_rng(1)
    with runtimes.open_session("ort:cpu", source) as session:
        ports = session.inputs
    made = []
    for _ in range(count):
        row: dict[str, np.ndarray] = {}
        for name, port in ports.items():
            shape = [size or 1 for size in port.shape]
            if port.dtype == "float32":
                row[name] = rng.normal(size=shape).astype(np.float32)
            else:
                row[name] = rng.integers(0, 256 if port.dtype == "uint8" else 2, shape, dtype=port.dtype)
        if "mask" in row:
            row["mask"][:, 0] = 1
        made.append(row)
    return made
