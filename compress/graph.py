"""Small ONNX passes that leave a graph every engine reads the same way: no shape arithmetic (compress/folding.py), no
aliases, no dead nodes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from compress.folding import compute, fix_reshapes, fold, replace_nodes


def tidy(model: onnx.ModelProto) -> None:
    """Apply all passes in place."""
    inline_aliases(model)
    fold(model)
    fix_reshapes(model)
    merge_pads(model)
    remove_dead(model)


def inline_aliases(model: onnx.ModelProto) -> None:
    """Constant nodes become initializers; Identity nodes go."""
    graph = model.graph
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in {port.name for port in graph.output}:
            renamed[node.output[0]] = node.input[0]
        elif node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def merge_pads(model: onnx.ModelProto) -> None:
    """Zero padding in front of a convolution goes into the convolution, where a quantizer cannot come between them.

    TensorFlow's "same" padding is uneven, so exporters write it as a node of its own.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    pads = {node.output[0]: node for node in model.graph.node if node.op_type == "Pad"}
    for node in model.graph.node:
        pad = pads.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is None or pad.input[1] not in constants:
            continue
        mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
        fill = constants.get(pad.input[2], np.zeros(1)) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
        added = constants[pad.input[1]].tolist()  # begin of every axis, then end of every axis
        rank = len(added) // 2
        if mode != b"constant" or fill.any() or any(added[:2]) or any(added[rank : rank + 2]):
            continue
        own = next((a for a in node.attribute if a.name == "pads"), None)
        spatial = [*added[2:rank], *added[rank + 2 :]]
        if own is None:
            node.attribute.append(onnx.helper.make_attribute("pads", spatial))
        else:
            own.ints[:] = [one + more for one, more in zip(own.ints, spatial, strict=True)]
        node.input[0] = pad.input[0]


def remove_dead(model: onnx.ModelProto) -> None:
    """Nodes and initializers that no output depends on go."""
    graph = model.graph
    needed = {port.name for port in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            needed.update(node.input)
            kept.append(node)
    replace_nodes(graph, kept[::-1])
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def float_prefix(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the nodes between the image input and the first convolution or product: cast, normalise, transpose."""
    names = []
    for node in model.graph.node:
        if node.op_type in {"Conv", "MatMul", "Gemm"}:
            break
        names.append(node.name)
    return tuple(names)


def unsigned_activations(model: onnx.ModelProto) -> None:
    """Signed activation quantizers become unsigned, value and zero point shifted by 128: exactly the same numbers.

    x86 multiplies unsigned by signed bytes; with signed activations engines have to compensate on every call.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" and not (node.op_type == "DequantizeLinear" and node.input[0] in made):
            continue
        zero = numpy_helper.to_array(tensors[node.input[2]])
        if zero.dtype == np.int8:
            shifted = (zero.astype(np.int16) + 128).astype(np.uint8)
            tensors[node.input[2]].CopyFrom(numpy_helper.from_array(shifted, node.input[2]))
    del model.graph.value_info[:]  # it names the old types


def quantize_embeddings(model: onnx.ModelProto, smallest: int = 1 << 16) -> None:
    """Float tables of at least `smallest` elements that are only looked up become int8, a scale per row, in place.

    Rows are looked up first and scaled after, so no engine unpacks the whole table.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        table = tensors.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.data_type != onnx.TensorProto.FLOAT or int(np.prod(table.dims)) < smallest:
            nodes.append(node)
            continue
        values, out = numpy_helper.to_array(table), node.output[0]
        scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / 127
        rows = np.round(values / scale).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(rows, f"{table.name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{table.name}.scale"))
        make = onnx.helper.make_node
        nodes += [
            make("Gather", [f"{table.name}.int8", node.input[1]], [f"{out}.int8"], f"{node.name}.int8"),
            make("Gather", [f"{table.name}.scale", node.input[1]], [f"{out}.scale"], f"{node.name}.scale"),
            make("Cast", [f"{out}.int8"], [f"{out}.float"], f"{node.name}.cast", to=onnx.TensorProto.FLOAT),
            make("Mul", [f"{out}.float", f"{out}.scale"], [out], f"{node.name}.rescale"),
        ]
    replace_nodes(graph, nodes)
    remove_dead(model)


def float_weight_quantizers(model: onnx.ModelProto) -> tuple[str, ...]:
    """QuantizeLinear nodes that read a stored float tensor: a weight kept in float behind Q/DQ, four times too big."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return tuple(n.name for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in stored)


def fold_weights(model: onnx.ModelProto) -> None:
    """Stored float tensors behind QuantizeLinear are stored as the integers, in place: a quarter of the size. So are
    those whose Transpose is read: engines look for a DequantizeLinear in front of a product.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights: dict[str, onnx.NodeProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and set(node.input) <= set(constants):
            constants |= compute(node, {name: constants[name] for name in node.input}, model)
            graph.initializer.append(numpy_helper.from_array(constants[node.output[0]], node.output[0]))
        elif node.op_type == "Transpose" and node.input[0] in weights:
            source, order, name = weights[node.input[0]], list(node.attribute[0].ints), f"{node.output[0]}.int8"
            turned = np.ascontiguousarray(constants[source.input[0]].transpose(order))
            graph.initializer.append(numpy_helper.from_array(turned, name))
            axis = order.index(next((a.i for a in source.attribute if a.name == "axis"), 1))
            inputs = [name, *source.input[1:]]
            nodes.append(onnx.helper.make_node(source.op_type, inputs, node.output, node.name, axis=axis))
        else:
            if node.op_type == "DequantizeLinear" and node.input[0] in constants:
                weights[node.output[0]] = node
            nodes.append(node)
    replace_nodes(graph, nodes)
    remove_dead(model)
