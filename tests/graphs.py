"""Tiny real graphs, built in code."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def probe_graph() -> onnx.ModelProto:
    """The graph shipped as runtimes/probe.onnx.

    image uint8 (images, 8, 8, 3) and ids, mask int64 (texts, 4) -> image_embedding (images, 4), text_embedding
    (texts, 4): two inputs of different rank, dtype and free batch size. Every weight is exact in bf16.
    """
    kernel = ((np.arange(12, dtype=np.float32).reshape(4, 3) - 6) / 8).reshape(4, 3, 1, 1)
    weights = {
        "scale": np.array(255, np.float32),
        "kernel": kernel,
        "table": np.arange(64, dtype=np.float32).reshape(16, 4) / 32,
        "hw": np.array([2, 3], np.int64),
        "length": np.array([1], np.int64),
        "last": np.array([2], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        node("Div", ["f", "scale"], ["unit"]),
        node("Transpose", ["unit"], ["nchw"], perm=[0, 3, 1, 2]),
        node("Conv", ["nchw", "kernel"], ["conv"]),
        node("Relu", ["conv"], ["relu"]),
        node("ReduceMean", ["relu", "hw"], ["image_embedding"], keepdims=0),
        node("Gather", ["table", "ids"], ["rows"]),
        node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["m", "last"], ["m3"]),
        node("Mul", ["rows", "m3"], ["masked"]),
        node("ReduceSum", ["masked", "length"], ["text_embedding"], keepdims=0),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "probe",
        [
            value("image", TensorProto.UINT8, ["images", 8, 8, 3]),
            value("ids", TensorProto.INT64, ["texts", 4]),
            value("mask", TensorProto.INT64, ["texts", 4]),
        ],
        [
            value("image_embedding", TensorProto.FLOAT, ["images", 4]),
            value("text_embedding", TensorProto.FLOAT, ["texts", 4]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="")
    onnx.checker.check_model(model, full_check=True)
    return model
