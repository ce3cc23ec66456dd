"""A trained model to ONNX: one graph per tower, everything but resizing and normalising inside.

The image graph takes uint8 (N, S, S, 3) RGB: cast, normalise and transpose live in it, so that every language only
resizes and crops. Towers end in raw projections (sdk/FORMAT.md says why).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
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
    """uint8 (N, S, S, 3) to the raw projections."""

    def __init__(self, side: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.side = side
        # (x / 255 - mean) / std as one scale and one shift: two nodes instead of three.
        self.scale = nn.Parameter(1 / (255 * torch.tensor(std)), requires_grad=False)
        self.shift = nn.Parameter(-torch.tensor(mean) / torch.tensor(std), requires_grad=False)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Cast, normalise, transpose, then the tower and its projections."""
        pixels = image.to(torch.float32) * self.scale + self.shift
        outputs: Tensor | tuple[Tensor, Tensor] = self.side(pixels.permute(0, 3, 1, 2))
        return outputs


@dataclass(frozen=True)
class Tower:
    """What is exported as one graph: a module, an example of its feeds (a batch of two), and the names of its ports."""

    module: nn.Module
    example: dict[str, Tensor]
    outputs: tuple[str, ...]


def towers(files: ModelFiles) -> dict[str, Tower]:
    """The towers of a model, in eval mode, by name: image, text and, if it answers questions, fusion."""
    model = load_model(files)
    size, length = files.image.size, files.text.max_length
    # A batch of two: with one, exporters take the batch for a constant.
    frames = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    words = torch.ones(2, length, dtype=torch.int64)
    image = ImageGraph(model.image, files.image.mean, files.image.std).eval()
    outputs = ("embedding",) if files.fusion is None else ("embedding", "tokens")
    found = {
        "image": Tower(image, {"image": frames}, outputs),
        "text": Tower(model.text, {"ids": words, "mask": words}, outputs),
    }
    if model.fusion is not None and files.fusion is not None:
        spec = files.fusion
        seen, read = (torch.zeros(2, count, spec.width) for count in (spec.image_tokens, length))
        found["fusion"] = Tower(model.fusion, {"image": seen, "text": read, "mask": words}, ("logits",))
    return found


def export_model(files: ModelFiles, folder: Path) -> dict[str, Path]:
    """Write the fp32 ONNX graph of every tower into `folder`; tower -> file."""
    paths = {}
    for name, tower in towers(files).items():
        paths[name] = folder / f"{name}.fp32.onnx"
        export_tower(tower, paths[name])
    return paths


def export_tower(tower: Tower, path: Path) -> None:
    """Write a tower's fp32 ONNX graph."""
    export_graph(tower, path)
    tidied = onnx.load(str(path))
    tidy(tidied)
    save_graph(tidied, path)


def export_graph(tower: Tower, path: Path) -> None:
    """Write a tower as the exporter gives it, of our opset and IR version; the caller tidies it."""
    with warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter folds BatchNorm into convolutions, which the dynamo one leaves to the engines.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tower.module,
            tuple(tower.example.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(tower.example),
            output_names=list(tower.outputs),
            dynamic_axes={name: {0: BATCH} for name in [*tower.example, *tower.outputs]},
        )
    model = onnx.load(str(path))
    model.ir_version = IR_VERSION
    model.producer_name = model.producer_version = model.doc_string = ""
    _fix_outputs(model, tower)
    onnx.save(model, str(path))


@torch.no_grad()
def _fix_outputs(model: onnx.ModelProto, tower: Tower) -> None:
    """The shapes of the outputs, where the exporter left more free than the batch."""
    made = tower.module(*tower.example.values())
    for port, output in zip(model.graph.output, made if isinstance(made, tuple) else (made,), strict=True):
        for dim, size in list(zip(port.type.tensor_type.shape.dim, output.shape, strict=True))[1:]:
            dim.dim_value = size


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
