"""Layers put back to float, after the real quantizers of both kinds."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtimes
from compress.export import save_graph
from compress.graph import float_weight_quantizers, remove_dead
from compress.quantizers import Job, quantizer
from compress.restore import put_back, quantized_layers, sensitivity
from runtimes import RecipeError

LAYERS = ("stem", "body", "last", "head")


def convolutions() -> onnx.ModelProto:
    """x (N, 3, 8, 8) -> conv -> ReLU6 -> conv with a bias -> ReLU -> conv -> product: embedding (N, 4)."""
    rng = np.random.default_rng(0)
    weights = {
        "stem.w": rng.normal(size=(8, 3, 3, 3)) * 2,
        "body.w": rng.normal(size=(8, 8, 1, 1)),
        "body.b": rng.normal(size=8) * 3,
        "last.w": rng.normal(size=(8, 8, 4, 4)),
        "head.w": rng.normal(size=(8, 4)),
        "low": np.array(0),
        "six": np.array(6),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "stem.w"], ["a"], "stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Clip", ["a", "low", "six"], ["b"], "relu6"),
        node("Conv", ["b", "body.w", "body.b"], ["c"], "body"),
        node("Relu", ["c"], ["d"], "relu"),
        node("Conv", ["d", "last.w"], ["e"], "last"),
        node("Flatten", ["e"], ["f"], "flatten"),
        node("MatMul", ["f", "head.w"], ["embedding"], "head"),
    ]
    return model(nodes, weights, ("x", TensorProto.FLOAT, ["batch", 3, 8, 8]), ["batch", 4])


def attention() -> onnx.ModelProto:
    """x (N, 5, 8), one channel an outlier -> normalise -> one head of attention -> embedding (N, 5, 4)."""
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(size=(8, 8)) / 3 for name in ("query.w", "key.w", "value.w")}
    weights |= {"head.w": rng.normal(size=(8, 4)), "scale": np.array([1, 1, 1, 40, 1, 1, 1, 1]), "shift": np.zeros(8)}
    node = helper.make_node
    nodes = [
        node("LayerNormalization", ["x", "scale", "shift"], ["n"], "norm"),
        *(node("MatMul", ["n", f"{name}.w"], [name], name) for name in ("query", "key", "value")),
        node("Transpose", ["key"], ["turned"], "turn", perm=[0, 2, 1]),
        node("MatMul", ["query", "turned"], ["scores"], "scores"),
        node("Softmax", ["scores"], ["shares"], "softmax", axis=-1),
        node("MatMul", ["shares", "value"], ["mixed"], "mix"),
        node("MatMul", ["mixed", "head.w"], ["embedding"], "head"),
    ]
    return model(nodes, weights, ("x", TensorProto.FLOAT, ["batch", 5, 8]), ["batch", 5, 4])


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    feed: tuple[str, int, list[object]],
    shape: list[object],
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value(*feed)], [value("embedding", TensorProto.FLOAT, shape)], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def rows(source: onnx.ModelProto, count: int = 40) -> list[dict[str, np.ndarray]]:
    shape = [dim.dim_value or 1 for dim in source.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(2)
    return [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count)]


def quantize(source: onnx.ModelProto, by: str) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(_quantized(source.SerializeToString(), by))


@functools.cache
def _quantized(graph: bytes, by: str) -> bytes:
    source = onnx.ModelProto.FromString(graph)
    transformer = any(node.op_type == "Softmax" for node in source.graph.node)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "source.onnx", Path(folder) / "made.onnx"
        save_graph(source, given)
        quantizer(by).quantize(Job(given, made, rows(source), (), transformer))
        return made.read_bytes()


def answers(graph: onnx.ModelProto, folder: Path, on: str = "ort:cpu") -> np.ndarray:
    path = folder / "run.onnx"
    save_graph(graph, path)
    with runtimes.open_session(on, path, precision="f32") as session:
        return np.concatenate([session.run(feed)["embedding"] for feed in rows(graph)])


def kinds(graph: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}


BOTH = pytest.mark.parametrize("by", ["nncf_ptq", "ort_static"])
EITHER = pytest.mark.parametrize("source", [convolutions(), attention()], ids=["convolutions", "attention"])


@BOTH
def test_quantizers_keep_the_names_of_layers(by: str) -> None:
    assert quantized_layers(convolutions()) == ()
    assert quantized_layers(quantize(convolutions(), by)) == LAYERS
    known = {node.name for node in attention().graph.node}
    assert set(quantized_layers(quantize(attention(), by))) <= known


@BOTH
@EITHER
@pytest.mark.parametrize("on", ["ort:cpu", "ov:cpu"])
def test_all_layers_back_is_the_float_graph(on: str, source: onnx.ModelProto, by: str, tmp_path: Path) -> None:
    """Whatever the quantizers did beside the weights: SmoothQuant, corrected and int32 biases, ReLUs taken out."""
    quantized = quantize(source, by)
    back = put_back(quantized, source, quantized_layers(quantized))
    assert not {tensor.data_type for tensor in back.graph.initializer if len(tensor.dims) > 1} - {TensorProto.FLOAT}
    wanted = answers(source, tmp_path)
    skip_quantizers(quantized)
    skip_quantizers(back)  # those that no layer reads at once: around a transposition, at the end of the graph
    assert np.abs(answers(quantized, tmp_path) - wanted).max() > 1e-3 * np.abs(wanted).max()
    assert np.abs(answers(back, tmp_path, on) - wanted).max() < 1e-4 * np.abs(wanted).max()


def skip_quantizers(graph: onnx.ModelProto) -> None:
    """Everything reads what stands in front of an activation's QuantizeLinear instead of what its partner gives."""
    rounded = {node.output[0]: node.input[0] for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    exact = {n.output[0]: rounded[n.input[0]] for n in graph.graph.node if n.input[0] in rounded}
    for node in graph.graph.node:
        node.input[:] = [exact.get(name, name) for name in node.input]
    end = exact.get("embedding")  # a graph must end in a node that gives this name
    for node in graph.graph.node:
        node.output[:] = ["rounded" if name == "embedding" and end else name for name in node.output]
        node.output[:] = ["embedding" if name == end else name for name in node.output]
    remove_dead(graph)


@BOTH
@pytest.mark.parametrize("name", LAYERS)
def test_one_layer_back_and_nothing_left_over(name: str, by: str, tmp_path: Path) -> None:
    source = convolutions()
    quantized = quantize(source, by)
    before = quantized.SerializeToString()
    back = put_back(quantized, source, [name])
    assert quantized.SerializeToString() == before
    assert quantized_layers(back) == tuple(layer for layer in LAYERS if layer != name)
    assert float_weight_quantizers(back) == ()
    stored = {tensor.name: tensor for tensor in back.graph.initializer}
    node = next(node for node in back.graph.node if node.name == name)
    weights = next(tensor for tensor in source.graph.initializer if tensor.name == f"{name}.w")
    assert stored[node.input[1]].raw_data == weights.raw_data
    used = {given for node in back.graph.node for given in node.input}
    assert set(stored) <= used
    both = [answers(back, tmp_path, on) for on in ("ort:cpu", "ov:cpu")]
    assert np.abs(both[0] - both[1]).max() < 0.05 * np.abs(both[0]).max()


def test_a_relu_that_the_quantizer_took_out_comes_back_once() -> None:
    source = convolutions()
    quantized = quantize(source, "ort_static")
    assert not kinds(quantized) & {"Clip", "Relu"}
    back = put_back(quantized, source, ["body"])
    assert [node.op_type for node in back.graph.node].count("Clip") == 1
    assert "Relu" not in kinds(back)


@BOTH
def test_the_layer_that_was_ruined_is_the_most_sensitive(by: str) -> None:
    source = convolutions()
    quantized = quantize(source, by)
    (weights,) = (t for t in quantized.graph.initializer if "body.w" in t.name and len(t.dims) == 4)
    turned = np.ascontiguousarray(numpy_helper.to_array(weights)[::-1])
    weights.CopyFrom(numpy_helper.from_array(turned, weights.name))
    told: list[str] = []
    on = runtimes.parse_target("ort:cpu")
    found = sensitivity(quantized, source, rows(source, 10), on, told.append)
    assert tuple(told) == LAYERS
    assert found[0][0] == "body"
    assert found[0][1] > 0.1
    assert found[0][1] > 10 * abs(found[1][1])
    assert [gain for _, gain in found] == sorted((gain for _, gain in found), reverse=True)


@pytest.mark.parametrize("name", ["relu", "nothing"])
def test_only_quantized_layers_can_be_put_back(name: str) -> None:
    source = convolutions()
    quantized = quantize(source, "ort_static")
    text = rf"'{name}' cannot be put back to float: .* quantized here: stem, body, last, head"
    with pytest.raises(RecipeError, match=text):
        put_back(quantized, source, ["stem", name])


def test_a_layer_that_the_quantizer_renamed_cannot_be_put_back() -> None:
    source = convolutions()
    quantized = quantize(source, "ort_static")
    source.graph.node[0].name = "other"
    with pytest.raises(
        RecipeError, match="'stem' cannot be put back to float: it must be a quantized layer that has the"
    ):
        put_back(quantized, source, ["stem"])


def test_activations_that_the_quantizer_renamed_are_missed() -> None:
    source = convolutions()
    quantized = quantize(source, "nncf_ptq")
    for node in source.graph.node:
        for names in (node.input, node.output):
            names[:] = ["other" if name == "b" else name for name in names]
    with pytest.raises(RecipeError, match="the quantized graph lacks 'other', which the float layer reads"):
        put_back(quantized, source, ["body"])
