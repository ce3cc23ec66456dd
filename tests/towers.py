"""The towers of the colour bundle (tests/bundles.py): tiny real ONNX graphs, fp32 and int8, weights in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdk.manifest import GraphSpec, PortSpec

SIZE, DIM, LENGTH = 16, 8, 6
# A token is red, green, blue around 0, and whether it is no colour; those of an image are its quarters.
WIDTH, IMAGE_TOKENS = 4, 4
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 60, 220),
    "yellow": (230, 220, 40),
    "white": (245, 245, 245),
    "black": (12, 12, 12),
}
WORDS = ["[PAD]", "[UNK]", "a", "wall", "purple", *COLOURS, "is", "it", "what", "color", "?"]
_PURPLE = (130, 40, 150)
NAMED = {**COLOURS, "purple": _PURPLE}  # colours that have a word
ANSWERS = ("yes", "no", *NAMED)
_STORED = ("kernel", "bias")  # the image tower's weights


def build(tower: str, variant: str, asks: bool = True) -> onnx.ModelProto:
    """The ONNX graph of a tower, fp32 or int8 (Q/DQ); image and text give `tokens` too if the bundle `asks`."""
    make = {"image": _image_nodes, "text": _text_nodes, "fusion": _fusion_nodes}[tower]
    nodes, weights = make(variant == "int8")
    spec = graph_spec(tower, variant, asks)

    def ports(side: Mapping[str, PortSpec]) -> list[onnx.ValueInfoProto]:
        kind = {n: helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)) for n, port in side.items()}
        return [helper.make_tensor_value_info(n, kind[n], ["batch", *p.shape[1:]]) for n, p in side.items()]

    graph = helper.make_graph(
        [node for node in nodes if asks or "tokens" not in node.name],
        tower,
        ports(spec.inputs),
        ports(spec.outputs),
        [numpy_helper.from_array(array, name) for name, array in weights.items() if asks or "tokens" not in name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="")
    onnx.checker.check_model(model, full_check=True)
    return model


def image_rows(colours: np.ndarray) -> np.ndarray:
    """What the image tower answers to solid colours (N, 3) in 0..255: float32 (N, DIM)."""
    hidden = np.maximum((colours / 255) @ _mixing().T + 0.1, 0)
    return (hidden - _centre()).astype(np.float32)


def text_rows() -> np.ndarray:
    """Embedding rows by word: float32 (words, DIM). Words that are no colour weigh little."""
    table = np.full((len(WORDS), DIM), 0.02, np.float32)
    table[0] = 0
    for word, colour in NAMED.items():
        table[WORDS.index(word)] = image_rows(np.array([colour]))[0]
    return table


def _mixing() -> np.ndarray:
    return (np.random.default_rng(3).standard_normal((DIM, 3)) * 0.8).astype(np.float32)


def _centre() -> np.ndarray:
    colours = np.array([*NAMED.values()])
    return np.maximum((colours / 255) @ _mixing().T + 0.1, 0).mean(axis=0).astype(np.float32)


def _image_nodes(int8: bool) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    node, kernel, bias = helper.make_node, _mixing().reshape(DIM, 3, 1, 1), np.full(DIM, 0.1, np.float32)
    weights = {"full": np.array(255, np.float32), "centre": _centre()}
    nodes = [
        node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        node("Div", ["f", "full"], ["unit"]),
        node("Transpose", ["unit"], ["x"], perm=[0, 3, 1, 2]),
    ]
    if int8:
        scales = {
            "x": np.float32(1 / 255),
            "kernel": np.float32(np.abs(kernel).max() / 127),
            "hidden": np.float32((np.maximum(kernel, 0).sum(axis=1).max() + 0.1) / 255),
        }
        scales["bias"] = scales["x"] * scales["kernel"]
        weights |= {f"{name}.scale": np.array(scale, np.float32) for name, scale in scales.items()}
        weights |= {f"{name}.zero": np.array(0, np.uint8) for name in ("x", "hidden")}
        weights |= {"kernel.zero": np.array(0, np.int8), "bias.zero": np.array(0, np.int32)}
        weights["kernel.q"] = np.round(kernel / scales["kernel"]).astype(np.int8)
        weights["bias.q"] = np.round(bias / scales["bias"]).astype(np.int32)
        nodes += [
            node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["x.q"]),
            *(node("DequantizeLinear", [f"{n}.q", f"{n}.scale", f"{n}.zero"], [n + "~"]) for n in ("x", *_STORED)),
            node("Conv", ["x~", "kernel~", "bias~"], ["conv"]),
            node("Relu", ["conv"], ["hidden"]),
            node("QuantizeLinear", ["hidden", "hidden.scale", "hidden.zero"], ["hidden.q"]),
            node("DequantizeLinear", ["hidden.q", "hidden.scale", "hidden.zero"], ["hidden~"]),
        ]
    else:
        weights |= {"kernel": kernel, "bias": bias}
        nodes += [node("Conv", ["x", "kernel", "bias"], ["conv"]), node("Relu", ["conv"], ["hidden~"])]
    nodes += [
        node("ReduceMean", ["hidden~"], ["pooled"], axes=[2, 3], keepdims=0),
        node("Sub", ["pooled", "centre"], ["embedding"]),
        node("AveragePool", ["x"], ["quarters"], "tokens.pool", kernel_shape=[SIZE // 2] * 2, strides=[SIZE // 2] * 2),
        node("Reshape", ["quarters", "tokens.shape"], ["channels"], "tokens.flat"),
        node("Transpose", ["channels"], ["rows"], "tokens.turn", perm=[0, 2, 1]),
        node("MatMul", ["rows", "tokens.widen"], ["wide"], "tokens.project"),
        node("Sub", ["wide", "tokens.middle"], ["tokens"], "tokens.centre"),
    ]
    weights["tokens.shape"] = np.array([0, 3, IMAGE_TOKENS], np.int64)
    weights["tokens.widen"] = np.eye(3, WIDTH, dtype=np.float32)
    weights["tokens.middle"] = np.array([0.5, 0.5, 0.5, 0], np.float32)
    return nodes, weights


def _text_nodes(int8: bool) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    node, table = helper.make_node, text_rows()
    weights = {"last": np.array([2], np.int64), "length": np.array([1], np.int64)}
    if int8:
        scale = np.float32(np.abs(table).max() / 127)
        weights |= {
            "table": np.round(table / scale).astype(np.int8),
            "scale": np.array(scale, np.float32),
            "zero": np.array(0, np.int8),
        }
        nodes = [
            node("Gather", ["table", "ids"], ["rows.q"]),
            node("DequantizeLinear", ["rows.q", "scale", "zero"], ["rows"]),
        ]
    else:
        weights["table"] = table
        nodes = [node("Gather", ["table", "ids"], ["rows"])]
    nodes += [
        node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["m", "last"], ["m3"]),
        node("Mul", ["rows", "m3"], ["masked"]),
        node("ReduceSum", ["masked", "length"], ["embedding"], keepdims=0),
        node("Gather", ["tokens.table", "ids"], ["seen"], "tokens.rows"),
        node("Mul", ["seen", "m3"], ["tokens"], "tokens.masked"),
    ]
    weights["tokens.table"] = np.stack([_token(NAMED.get(word)) for word in WORDS])
    return nodes, weights


def _token(colour: tuple[int, int, int] | None) -> np.ndarray:
    """The token of a colour, or of a word that is none: float32 (WIDTH,)."""
    return np.array([0, 0, 0, 1] if colour is None else [*(c / 255 - 0.5 for c in colour), 0], np.float32)


def _fusion_nodes(int8: bool) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Which colour an image token, or a word, is: the nearest prototype, softmax of -steep * squared distance.

    A word may also be none. With the image's colours p (mean over its tokens), the colours that the question names a,
    their product m = sum(a p) and whether it names any, n = max(a): "yes" gets m + n - 1, "no" 2 n - m - 1, a colour
    p - n, each times `sure`.
    """
    node = helper.make_node
    prototypes = np.stack([_token(colour) for colour in [*NAMED.values(), None]])
    steep, sure, count = 16.0, 6.0, len(NAMED)
    head = np.zeros((count + 2, len(ANSWERS)), np.float32)  # rows: m, n, p
    head[0, :2], head[1], head[2:, 2:] = (1, -1), [1, 2, *[-1] * count], np.eye(count)
    weights = {
        "near": (2 * steep * prototypes.T).astype(np.float32),
        "offset": (-steep * (prototypes**2).sum(axis=1)).astype(np.float32),
        "colours": np.arange(count, dtype=np.int64),
        "head": sure * head,
        "base": sure * np.array([-1, -1, *[0] * count], np.float32),
        **{name: np.array([axis], np.int64) for name, axis in (("first", 1), ("last", 2), ("row", 1))},
    }
    if int8:
        scale = np.float32(np.abs(weights["near"]).max() / 127)
        weights["near"] = np.round(weights["near"] / scale).astype(np.int8)
        weights |= {"near.scale": np.array(scale, np.float32), "near.zero": np.array(0, np.int8)}
        weights |= {"x.scale": np.array(1 / 127, np.float32), "x.zero": np.array(0, np.int8)}
    nodes = []
    for side in ("image", "text"):
        if int8:
            nodes += [
                node("QuantizeLinear", [side, "x.scale", "x.zero"], [f"{side}.q"]),
                node("DequantizeLinear", [f"{side}.q", "x.scale", "x.zero"], [f"{side}~"]),
                node("DequantizeLinear", ["near", "near.scale", "near.zero"], [f"{side}.near"]),
            ]
        nodes += [
            node("MatMul", [f"{side}~", f"{side}.near"] if int8 else [side, "near"], [f"{side}.product"]),
            node("Add", [f"{side}.product", "offset"], [f"{side}.fit"]),
            node("Softmax", [f"{side}.fit"], [f"{side}.sort"], axis=2),
            node("Gather", [f"{side}.sort", "colours"], [f"{side}.colours"], axis=2),
        ]
    nodes += [
        node("ReduceMean", ["image.colours"], ["p"], axes=[1], keepdims=0),
        node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["m", "last"], ["m3"]),
        node("Mul", ["text.colours", "m3"], ["named"]),
        node("ReduceMax", ["named"], ["a"], axes=[1], keepdims=0),
        node("Mul", ["a", "p"], ["both"]),
        node("ReduceSum", ["both", "row"], ["match"], keepdims=1),
        node("ReduceMax", ["a"], ["any"], axes=[1], keepdims=1),
        node("Concat", ["match", "any", "p"], ["facts"], axis=1),
        node("MatMul", ["facts", "head"], ["weighed"]),
        node("Add", ["weighed", "base"], ["logits"]),
    ]
    return nodes, weights


def graph_spec(tower: str, variant: str, asks: bool) -> GraphSpec:
    """What bundle.json says of a tower."""
    ids = PortSpec("int64", (None, LENGTH))
    tokens = {n: PortSpec("float32", (None, c, WIDTH)) for n, c in (("image", IMAGE_TOKENS), ("text", LENGTH))}
    inputs = {
        "image": {"image": PortSpec("uint8", (None, SIZE, SIZE, 3))},
        "text": {"ids": ids, "mask": ids},
        "fusion": {**tokens, "mask": ids},
    }[tower]
    outputs = {"embedding": PortSpec("float32", (None, DIM))}
    if tower == "fusion":
        outputs = {"logits": PortSpec("float32", (None, len(ANSWERS)))}
    elif asks:
        outputs["tokens"] = tokens[tower]
    return GraphSpec(f"{tower}.{variant}.onnx", variant, ("ov", "ort"), 17, inputs, outputs, 24 * SIZE * SIZE, 24)
