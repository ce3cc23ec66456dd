"""A tiny bundle that really recognises: frames by their colour, texts by the colour words in them.

Its weights are fitted in closed form (a text row is what the image tower answers to that colour), so tests have a
working dual encoder, fp32 and int8, in milliseconds and without torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer as Inner
from tokenizers import models, normalizers, pre_tokenizers

import runtimes
from sdk.bundle import MANIFEST, Bundle, open_bundle
from sdk.golden import golden_arrays, unit_rows
from sdk.manifest import (
    BankSpec,
    Figure,
    GraphSpec,
    ImageSpec,
    LabelSpec,
    Licences,
    Manifest,
    PortSpec,
    ScoreSpec,
    TextSpec,
)
from sdk.text import Tokenizer
from sdk.writer import npy_bytes, npz_bytes, write_bundle

SIZE, DIM, LENGTH = 16, 8, 6
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 60, 220),
    "yellow": (230, 220, 40),
    "white": (245, 245, 245),
    "black": (12, 12, 12),
}
WORDS = ["[PAD]", "[UNK]", "a", "wall", "purple", *COLOURS]
BANK = ("red", "green", "blue", "yellow")
_PURPLE = (130, 40, 150)
_STORED = ("kernel", "bias")  # the image tower's weights


def colour_frame(colour: str, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """A noisy frame of one colour: uint8 (size, size, 3) RGB."""
    noise = np.random.default_rng(seed).integers(-12, 13, (size, size, 3))
    return np.clip(np.array({**COLOURS, "purple": _PURPLE}[colour]) + noise, 0, 255).astype(np.uint8)


def build_colour_bundle(out: Path, **changes: object) -> Bundle:
    """Write the bundle to `out`; `changes` replace fields of its manifest."""
    graphs = {(t, v): build(t, v) for t in ("image", "text") for v in ("fp32", "int8")}
    files: dict[str, Path | bytes] = {f"{t}.{v}.onnx": m.SerializeToString() for (t, v), m in graphs.items()}
    files["tokenizer.json"] = tokenizer_json().encode()
    frames = [colour_frame(c, SIZE if i < 6 else 40, seed=i) for i, c in enumerate([*COLOURS, "red", "blue"])]
    texts = ["red", "a green wall", "blue", "yellow", "white", "a black wall", "purple", "a strange wall"]
    spec = ImageSpec(SIZE, "area", "none", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    tokenizer = Tokenizer(tokenizer_json(), LENGTH, "tokenizer.json")
    arrays = golden_arrays(frames, np.full((SIZE, SIZE, 3), 255, np.uint8), texts, spec, tokenizer)
    for (tower, variant), model in graphs.items():
        arrays[f"out/{tower}/{variant}"] = _answers(model, tower, arrays)
    files["golden.npz"] = npz_bytes(arrays)
    bank = text_rows()[[WORDS.index(name) for name in BANK]]
    files["labels.npy"] = npy_bytes(unit_rows(bank))
    manifest = Manifest(
        name="colours",
        space="colours-1",
        dim=DIM,
        licences=Licences("Apache-2.0", {}),
        tasks=("classify", "embed_images", "embed_texts"),
        graphs={t: {v: _graph_spec(t, v) for v in ("fp32", "int8")} for t in ("image", "text")},
        image=spec,
        text=TextSpec(LENGTH, "tokenizer.json", ("a {} wall",)),
        score=ScoreSpec("softmax", 20.0, 0.0),
        golden="golden.npz",
        tolerance={t: {"fp32": {"f32": 1e-5, "*": 2e-2}, "int8": {"*": 2e-2}} for t in ("image", "text")},
        labels=BankSpec("fp32", "labels.npy", tuple(LabelSpec(name, (name,), 0) for name in BANK)),
        quality={"zero_shot.top1": {"student": Figure(1.0, 0.9, 1.0, 8)}},
        provenance={"made_by": "tests"},
    )
    return write_bundle(out, replace(manifest, **changes), files)  # type: ignore[arg-type]


def damage(
    bundle: Path,
    out: Path,
    files: Mapping[str, bytes] | None = None,
    change: Callable[[dict[str, Any]], object] | None = None,
) -> Path:
    """Copy a bundle to `out` with other `files` and a changed bundle.json.

    Hashes are mended, so that only the check under test can object.
    """
    shutil.copytree(bundle, out)
    table = json.loads((out / MANIFEST).read_bytes())
    for name, data in (files or {}).items():
        (out / name).write_bytes(data)
        table["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if change is not None:
        change(table)
    (out / MANIFEST).write_text(json.dumps(table), encoding="utf-8")
    return out


def golden_with(bundle: Path, **arrays: np.ndarray | None) -> bytes:
    """golden.npz of a bundle with other arrays, `__` for `/` in a name; None leaves one out."""
    changed: dict[str, np.ndarray | None] = {**open_bundle(bundle).golden}
    changed |= {name.replace("__", "/"): array for name, array in arrays.items()}
    return npz_bytes({name: array for name, array in changed.items() if array is not None})


def tokenizer_json() -> str:
    """A word-level tokenizer that lower-cases, pads and cuts to LENGTH."""
    inner = Inner(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.enable_truncation(LENGTH)
    inner.enable_padding(length=LENGTH, pad_id=0, pad_token="[PAD]")
    return str(inner.to_str())


def build(tower: str, variant: str) -> onnx.ModelProto:
    """The ONNX graph of a tower, fp32 or int8 (Q/DQ)."""
    nodes, weights = (_image_nodes if tower == "image" else _text_nodes)(variant == "int8")
    value = helper.make_tensor_value_info
    feeds = {"image": [("image", TensorProto.UINT8, [SIZE, SIZE, 3])]}.get(
        tower, [("ids", TensorProto.INT64, [LENGTH]), ("mask", TensorProto.INT64, [LENGTH])]
    )
    graph = helper.make_graph(
        nodes,
        tower,
        [value(name, kind, ["batch", *shape]) for name, kind, shape in feeds],
        [value("embedding", TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
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
    for word, colour in {**COLOURS, "purple": _PURPLE}.items():
        table[WORDS.index(word)] = image_rows(np.array([colour]))[0]
    return table


def _mixing() -> np.ndarray:
    return (np.random.default_rng(3).standard_normal((DIM, 3)) * 0.8).astype(np.float32)


def _centre() -> np.ndarray:
    colours = np.array([*COLOURS.values(), _PURPLE])
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
    ]
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
    ]
    return nodes, weights


def _graph_spec(tower: str, variant: str) -> GraphSpec:
    feed = PortSpec("int64", (None, LENGTH))
    inputs = {"image": PortSpec("uint8", (None, SIZE, SIZE, 3))} if tower == "image" else {"ids": feed, "mask": feed}
    outputs = {"embedding": PortSpec("float32", (None, DIM))}
    return GraphSpec(f"{tower}.{variant}.onnx", variant, ("ov", "ort"), 17, inputs, outputs, 24 * SIZE * SIZE, 24)


def _answers(model: onnx.ModelProto, tower: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    prefix = f"feed/{tower}/"
    feeds = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        with runtimes.open_session("ort:cpu", path, batch=None) as session:
            return session.run(feeds)["embedding"]
