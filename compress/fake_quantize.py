"""An image tower that rounds in training as its int8 graph will: where, how, and the graph that comes of it."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

import runtimes
from compress.draft import ImageSpec
from compress.export import ImageGraph, Tower, export_graph, save_graph
from compress.graph import fold_weights, merge_pads, remove_dead, tidy, unsigned_activations
from compress.models.dual_encoder import to_input

PORTS = ("embedding", "tokens")
FOLLOW = 0.05  # of the way from the running range to a batch's
SMALLEST = 1e-9  # scale: a channel may be all zero


class FakeQuantizer(nn.Module):
    """Rounds to the int8 levels and back; the gradient passes where nothing is cut off (Jacob et al. 2018, arXiv
    1712.05877).

    While it trains, the range follows what passes: a weight's is its own, an activation's a running mean. `scale`:
    float32 (C,), C channels along `axis`, of a weight; () of an activation, whose `axis` is None. `levels`: least and
    most integer.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, scale: Tensor, levels: tuple[int, int], axis: int | None) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int32))
        self.levels, self.axis = levels, axis

    def forward(self, values: Tensor) -> Tensor:
        """float32 of any shape to the same, rounded."""
        if self.training:
            self._follow(values.detach())
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero, *self.levels)
        return torch.fake_quantize_per_channel_affine(values, self.scale, self.zero, self.axis, *self.levels)

    def _follow(self, values: Tensor) -> None:
        low, high = self.levels
        if self.axis is None:
            least, most = values.aminmax()
            top = torch.maximum(most, -least) if low < 0 else most
            self.scale.lerp_(top / high, FOLLOW)
        else:
            others = [axis for axis in range(values.ndim) if axis != self.axis]
            self.scale.copy_(values.abs().amax(others) / high)
        self.scale.clamp_(min=SMALLEST)


def outputs(side: nn.Module, pixels: Tensor) -> tuple[Tensor, ...]:
    """embedding (N, D), and tokens (N, T, F) where the tower gives them, of pixels (N, 3, S, S)."""
    got: Any = side(pixels)
    return tuple(got) if isinstance(got, tuple | list) else (got,)


def insert_quantizers(side: nn.Module, pixels: Tensor) -> nn.Module:
    """A copy of a float image tower, BatchNorm folded, with quantizers calibrated on `pixels` float32 (N, 3, S, S).

    NNCF finds the places and the first ranges. Its own quantizers go: they compile C++ when they are first used, and
    fail where that takes more than a minute.
    """
    runtimes.targets()  # turns off the telemetry of OpenVINO, which NNCF would start when it is imported
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # says that there is no CUDA compiler
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters
    from nncf.torch.quantization.layers import BaseQuantizer

    logging.getLogger("nncf").setLevel(logging.ERROR)
    folded = copy.deepcopy(side).eval()
    fold_batch_norm(folded, pixels[:2])
    model: nn.Module = nncf.quantize(
        folded,
        nncf.Dataset([pixels[at : at + 1] for at in range(len(pixels))]),
        preset=nncf.QuantizationPreset.PERFORMANCE,  # all zero points are 0
        subset_size=len(pixels),
        advanced_parameters=AdvancedQuantizationParameters(
            disable_bias_correction=True,  # training does that
            # As in the quantizer nncf_ptq: ONNX Runtime refuses per-channel activations in places.
            activations_quantization_params=QuantizationParameters(per_channel=False),
        ),
    )
    for name, theirs in list(model.named_modules()):
        if isinstance(theirs, BaseQuantizer):
            low, high, scale, zero = theirs.get_parameters_for_torch_fq()
            if torch.any(zero):
                raise ValueError(f"NNCF shifted the zero point of {name}, which its preset PERFORMANCE does not")
            axis = int(np.argmax(theirs.scale_shape)) if theirs.per_channel else None
            ours = FakeQuantizer(scale if theirs.per_channel else scale.squeeze(), (low, high), axis)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, ours)
    return model


@torch.no_grad()
def fold_batch_norm(module: nn.Module, pixels: Tensor) -> None:
    """Fold each BatchNorm that reads a convolution's output into that convolution, in place.

    Which reads which is seen by running `pixels`, (N, 3, S, S): a tower's own code says it nowhere else. timm's
    BatchNorm has the activation in it, which stays.
    """
    made: dict[int, tuple[Any, Tensor]] = {}  # outputs by identity, kept, so that no later one can be taken for them
    pairs: dict[str, tuple[Any, Any]] = {}

    def note(conv: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        made[id(output)] = (conv, output)

    def match(norm: nn.Module, feeds: tuple[Tensor, ...]) -> None:
        if id(feeds[0]) in made:
            pairs[names[norm]] = (made[id(feeds[0])][0], norm)

    names = {part: name for name, part in module.named_modules()}
    hooks = [part.register_forward_hook(note) for part in names if isinstance(part, nn.Conv2d)]
    hooks += [part.register_forward_pre_hook(match) for part in names if isinstance(part, nn.BatchNorm2d)]
    module(pixels)
    for hook in hooks:
        hook.remove()
    for name, (conv, norm) in pairs.items():
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, getattr(norm, "act", nn.Identity()))


def export_quantized(model: nn.Module, spec: ImageSpec, path: Path) -> None:
    """Write a tower with quantizers as an int8 Q/DQ graph like those of compress/quantizers; uint8 (N, S, S, 3) in."""
    frames = torch.zeros(2, spec.size, spec.size, 3, dtype=torch.uint8)
    with torch.no_grad():
        names = PORTS[: len(outputs(model, to_input(frames.numpy(), spec.mean, spec.std)))]
    export_graph(Tower(ImageGraph(model, spec.mean, spec.std).eval(), {"image": frames}, names), path)
    graph = onnx.load(str(path))
    tidy(graph)
    _pad_after_rounding(graph)
    fold_weights(graph)
    unsigned_activations(graph)
    save_graph(graph, path)


def _pad_after_rounding(model: onnx.ModelProto) -> None:
    """Pad -> QuantizeLinear -> DequantizeLinear -> Conv: the zeros, which rounding keeps, go into the convolution."""
    made = {node.output[0]: node for node in model.graph.node}
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        chain = [conv]
        while len(chain) < 4 and chain[-1].input[0] in made:
            chain.append(made[chain[-1].input[0]])
        if [node.op_type for node in chain[1:]] == ["DequantizeLinear", "QuantizeLinear", "Pad"]:
            _, back, rounding, pad = chain
            rounding.input[0], pad.input[0], conv.input[0] = pad.input[0], back.output[0], pad.output[0]
    merge_pads(model)
    remove_dead(model)
