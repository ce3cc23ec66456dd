"""A float graph in half precision, as strongly typed engines want it: the types in the file are the types computed in.

What an app sees stays: uint8 or int64 in, float32 out; casts stand inside. Opset 19, since only from there on Q/DQ may
have half-precision scales.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from compress.graph import inline_aliases

OPSET = 19
IR_VERSION = 9  # what opset 19 asks for
# What is beyond half's range (a mask of -1e9, say) becomes this: far enough for a softmax, and finite when it is added.
_FAR = 30000.0
# Half's smallest normal number: below, scales lose digits, and become 0 at last.
_SMALLEST_SCALE = 2.0**-14


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with float16 weights and activations, Q/DQ scales included; `model` is not changed.

    Weights that are stored as int8 keep their values to within half a step of a scale that half can hold.
    """
    made = version_converter.convert_version(model, OPSET)
    made.ir_version = IR_VERSION
    made.producer_name = made.producer_version = ""
    inline_aliases(made)
    graph = made.graph
    _raise_scales(graph)
    for tensor in graph.initializer:
        _halve(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            elif attribute.type == onnx.AttributeProto.TENSOR:  # as of ConstantOfShape
                _halve(attribute.t)
    _cast_ports(graph)
    del graph.value_info[:]  # it names the old types
    return made


def _halve(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        values = numpy_helper.to_array(tensor)
        far = np.abs(values) > np.finfo(np.float16).max
        values = np.where(far, np.sign(values) * np.float32(_FAR), values)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))


def _raise_scales(graph: onnx.GraphProto) -> None:
    """Scales that half cannot hold become the smallest that it can, and stored weights are rounded to them again."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    raised: dict[str, np.ndarray] = {}  # name of a scale -> by what it grew
    for node in graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        scale = tensors[node.input[1]]
        values = numpy_helper.to_array(scale)
        if scale.name not in raised:
            larger = np.maximum(values, np.float32(_SMALLEST_SCALE))
            raised[scale.name] = values / larger
            scale.CopyFrom(numpy_helper.from_array(larger, scale.name))
        weight = tensors.get(node.input[0])
        if weight is None or (raised[scale.name] == 1).all():
            continue
        steps = numpy_helper.to_array(weight)
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        shape = [-1 if at == axis else 1 for at in range(steps.ndim)] if values.ndim else []
        again = np.round(steps * raised[scale.name].reshape(shape)).astype(steps.dtype)
        weight.CopyFrom(numpy_helper.from_array(again, weight.name))


def _cast_ports(graph: onnx.GraphProto) -> None:
    """Inputs and outputs of float32 stay so: casts stand behind and before them."""
    before, after = [], []
    for port in graph.input:
        if port.type.tensor_type.elem_type == TensorProto.FLOAT:
            name = f"{port.name}.half"
            for node in graph.node:
                node.input[:] = [name if each == port.name else each for each in node.input]
            before.append(helper.make_node("Cast", [port.name], [name], f"{name}.cast", to=TensorProto.FLOAT16))
    for port in graph.output:
        if port.type.tensor_type.elem_type == TensorProto.FLOAT:
            name = f"{port.name}.half"
            for node in graph.node:
                node.input[:] = [name if each == port.name else each for each in node.input]
                node.output[:] = [name if each == port.name else each for each in node.output]
            after.append(helper.make_node("Cast", [name], [port.name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
