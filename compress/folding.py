"""What an ONNX graph computes at run time and is known already: shapes, and what follows from constants.

Only the batch is free in our graphs, so what exporters compute with Shape nodes is known but for one -1. ONNX Runtime
puts Shape nodes on the CPU, which costs a CUDA session two copies each.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator


def fold(model: onnx.ModelProto) -> None:
    """Fold shapes and constants, in place, until nothing is left to fold."""
    nodes = -1
    while nodes != len(model.graph.node):  # a folded padding lets the next shape be inferred
        nodes = len(model.graph.node)
        fold_shapes(model)
        fold_constants(model)


def fold_shapes(model: onnx.ModelProto) -> None:
    """Shape -> Gather of a dimension that is known becomes that number, and a Shape that is all known its numbers."""
    shapes = _shapes(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    # With attributes it is a part of the shape, and counts from elsewhere.
    whole = [node for node in model.graph.node if node.op_type == "Shape" and not node.attribute]
    shape_of = {node.output[0]: node.input[0] for node in whole}
    kept = []
    for node in model.graph.node:
        source = shape_of.get(node.input[0]) if node.op_type == "Gather" else None
        index = constants.get(node.input[1]) if source in shapes else None
        known: int | list[int] = -1
        if source is not None and index is not None:
            at = numpy_helper.to_array(index)
            known = shapes[source][int(at)] if at.ndim == 0 else -1
        elif node.op_type == "Shape" and not node.attribute:
            sizes = shapes.get(node.input[0], [-1])
            known = sizes if min(sizes, default=0) >= 0 else -1
        if known != -1:
            model.graph.initializer.append(numpy_helper.from_array(np.array(known, np.int64), node.output[0]))
        else:
            kept.append(node)
    replace_nodes(model.graph, kept)


def fold_constants(model: onnx.ModelProto, largest: int = 1 << 16) -> None:
    """Nodes that read only constants are computed now, if the result has at most `largest` elements.

    Dequantised weights stay: folding them would undo the quantisation.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} or not set(node.input) <= {*constants, ""}:
            kept.append(node)
            continue
        feeds = {name: constants[name] for name in node.input if name}
        results = compute(node, feeds, model)
        if sum(array.size for array in results.values()) > largest:
            kept.append(node)
            continue
        constants |= results
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in results.items())
    replace_nodes(model.graph, kept)


def compute(node: onnx.NodeProto, feeds: dict[str, np.ndarray], model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """What a node of a model makes of `feeds`: output -> array."""
    value = onnx.helper.make_tensor_value_info
    ports = [value(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = onnx.helper.make_graph([node], "one", ports, outputs)
    one = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    results = ReferenceEvaluator(one).run(None, feeds)
    return {name: np.asarray(array) for name, array in zip(node.output, results, strict=True)}


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes of all tensors as far as they can be inferred, -1 where a dimension is free."""
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    found = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = [d.dim_value if d.HasField("dim_value") else -1 for d in dims]
    return found


def fix_reshapes(model: onnx.ModelProto) -> None:
    """A Reshape target whose only computed size is the batch, in front, becomes a constant: 0 copies the batch.

    What the batch is, two of them tell: a size that heads or windows were folded into is another.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    computed = [node for node in model.graph.node if node.op_type == "Reshape" and node.input[1] not in stored]
    tried = {batch: _with_batch(model, batch) for batch in (7, 11)} if computed else {}
    for node in computed:
        targets = [
            constants[node.input[1]].tolist()
            for batch, (constants, shapes) in tried.items()
            if node.input[1] in constants and shapes.get(node.input[0], [])[:1] == [batch]
        ]
        if [target[:1] for target in targets] == [[batch] for batch in tried] and targets[0][1:] == targets[1][1:]:
            name = f"{node.output[0]}.shape"
            target = np.array([0, *targets[0][1:]], np.int64)
            model.graph.initializer.append(numpy_helper.from_array(target, name))
            node.input[1] = name


def _with_batch(
    model: onnx.ModelProto, batch: int, largest: int = 1 << 16
) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """The constants and shapes that a model has if its batch is this one; tensors beyond `largest` are left out."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    for port in graph.input:
        port.type.tensor_type.shape.dim[0].dim_value = batch
    for port in graph.output:  # what is said of them must not contradict it
        port.type.tensor_type.ClearField("shape")
    del graph.value_info[:], graph.initializer[:]
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims)) > largest:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            graph.initializer.append(tensor)
    fold(fixed)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}, _shapes(fixed)


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Put these nodes, which may be its own, in the place of all of a graph's."""
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
