"""A trained dual encoder to ONNX: one graph per tower, everything but resizing and normalising inside.

The image graph takes uint8 (N, S, S, 3) RGB: cast, normalise and transpose live in it, so that every language only
resizes and crops. Both graphs end in the raw projection (sdk/FORMAT.md says why).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from onnx import shape_inference
from torch import Tensor, nn

from compress.graph import tidy
from compress.models.dual_encoder import load_model
from sdk.manifest import GraphSpec, PortSpec
from sdk.onnx_scan import scan_onnx

if TYPE_CHECKING:
    from compress.draft import ModelFiles

OPSET = 17  # the newest that phones, OpenVINO and ONNX Runtime all take, with LayerNormalization in it
IR_VERSION = 8
BATCH = "batch"


class ImageGraph(nn.Module):
    """uint8 (N, S, S, 3) to the raw projection."""

    def __init__(self, side: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.side = side
        # (x / 255 - mean) / std as one scale and one shift: two nodes instead of three.
        self.scale = nn.Parameter(1 / (255 * torch.tensor(std)), requires_grad=False)
        self.shift = nn.Parameter(-torch.tensor(mean) / torch.tensor(std), requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        """Cast, normalise, transpose, then the tower and its projection."""
        pixels = image.to(torch.float32) * self.scale + self.shift
        joint: Tensor = self.side(pixels.permute(0, 3, 1, 2))
        return joint


def export_model(files: ModelFiles, folder: Path) -> dict[str, Path]:
    """Write image.fp32.onnx and text.fp32.onnx into `folder`; tower -> file."""
    model = load_model(files)
    size, length = files.image.size, files.text.max_length
    # A batch of two: with one, exporters take the batch for a constant.
    tokens = torch.ones(2, length, dtype=torch.int64)
    frames = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    image = ImageGraph(model.image, files.image.mean, files.image.std).eval()
    paths = {tower: folder / f"{tower}.fp32.onnx" for tower in ("image", "text")}
    _export(image, (frames,), ["image"], paths["image"])
    _export(model.text, (tokens, tokens), ["ids", "mask"], paths["text"])
    return paths


def _export(module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter folds BatchNorm into convolutions, which the dynamo one leaves to the engines.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=["embedding"],
            dynamic_axes={name: {0: BATCH} for name in [*inputs, "embedding"]},
        )
    model = onnx.load(str(path))
    model.ir_version = IR_VERSION
    model.producer_name = model.producer_version = model.doc_string = ""
    tidy(model)
    save_graph(model, path)


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Check a model and write it as one file, the same bytes for the same graph."""
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def graph_spec(path: Path, stored: str, families: tuple[str, ...]) -> GraphSpec:
    """What bundle.json says of a graph file: ports, opset, parameters, multiply-accumulates of a batch of one."""
    facts = scan_onnx(path)
    model = onnx.load(str(path))
    return GraphSpec(
        file=path.name,
        stored=stored,
        families=families,
        opset=facts.opset,
        inputs={port.name: PortSpec(port.dtype, port.shape) for port in facts.inputs},
        outputs={port.name: PortSpec(port.dtype, port.shape) for port in facts.outputs},
        macs=count_macs(model),
        params=sum(_size(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) > 0),
    )


def count_macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of convolutions and matrix products for a batch of one."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for port in fixed.graph.input:
        port.type.tensor_type.shape.dim[0].dim_value = 1
    graph = shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        shapes.setdefault(value.name, [d.dim_value for d in value.type.tensor_type.shape.dim])
    total = 0
    for node in graph.node:
        out = shapes.get(node.output[0], [])
        if node.op_type == "Conv":
            total += _size(out) * _size(shapes[node.input[1]][1:])
        elif node.op_type in {"MatMul", "Gemm"}:
            total += _size(out) * shapes[node.input[0]][-1]
    return total


def _size(dims: list[int]) -> int:
    count = 1
    for dim in dims:
        count *= dim
    return count
