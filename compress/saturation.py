"""What int8 convolutions do on x86 CPUs without VNNI, emulated.

There the multiply instruction (pmaddubsw) adds two neighbouring u8 x s8 products in 16 bits and saturates: 255 * 127 +
255 * 127 does not fit. A bundle must notice such a device, so it carries a frame on which the damage is large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from runtimes import Array
from sdk.golden import cosine_distance
from sdk.resize import Frame

DOMAIN = "pupil"


def saturation_damage(path: Path, frames: Sequence[Frame]) -> list[float]:
    """Per frame, uint8 (S, S, 3), the cosine distance that saturating convolutions move its embedding by.

    `path` is an int8 Q/DQ graph. Depthwise convolutions are exact: they are not computed by that instruction.
    """
    model = onnx.load(str(path))
    damaged = saturating(model)
    exact_run, damaged_run = (ReferenceEvaluator(m, new_ops=OPERATORS) for m in (model, damaged))
    found = []
    for frame in frames:
        feeds = {"image": frame[None]}
        (exact,), (got,) = exact_run.run(["embedding"], feeds), damaged_run.run(["embedding"], feeds)
        found.append(cosine_distance(np.asarray(got, np.float32), np.asarray(exact, np.float32)))
    return found


def saturating(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every full convolution of quantised activations with int8 weights saturates."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in copy.graph.initializer}
    made_by = {output: node for node in copy.graph.node for output in node.output}
    for node in copy.graph.node:
        if node.op_type != "Conv" or next((a.i for a in node.attribute if a.name == "group"), 1) != 1:
            continue
        sides = [made_by.get(name) for name in node.input[:2]]
        if any(side is None or side.op_type != "DequantizeLinear" for side in sides):
            continue
        data, weights = sides
        if data is None or weights is None or stored[weights.input[0]].dtype != np.int8:
            continue
        bias = list(node.input[2:])
        node.op_type, node.domain = "SaturatingConv", DOMAIN
        node.input[:] = [*data.input, *weights.input[:2], *bias]
    copy.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return copy


def saturating_sums(levels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """int32 levels 0..255 (C, P) times int8-valued weights (O, C) to (O, P), pairs of channels added in 16 bits."""
    if levels.shape[0] % 2:
        levels = torch.nn.functional.pad(levels, (0, 0, 0, 1))
        weights = torch.nn.functional.pad(weights, (0, 1))
    products = weights[:, :, None] * levels[None]
    pairs = products[:, 0::2] + products[:, 1::2]
    return pairs.clamp(-32768, 32767).sum(dim=1)


class Conv(OpRun):
    """ONNX Conv by torch: the reference evaluator's own takes minutes."""

    op_domain = ""

    def _run(self, x: Array, w: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        begin, end, strides = _geometry(attributes)
        padded = torch.nn.functional.pad(torch.from_numpy(x), (begin[1], end[1], begin[0], end[0]))
        made = torch.nn.functional.conv2d(
            padded,
            torch.from_numpy(np.array(w)),
            None if bias is None else torch.from_numpy(np.array(bias)),
            strides,
            groups=attributes.get("group") or 1,
        )
        return (made.numpy(),)


class SaturatingConv(OpRun):
    """Q/DQ convolution with 16-bit pair sums. Inputs: level, scale, zero point; weight, its scale; bias."""

    op_domain = DOMAIN

    def _run(self, *inputs: Array, **attributes: Any) -> tuple[Array]:
        levels, scale, zero, weights, weight_scale = inputs[:5]
        begin, end, strides = _geometry(attributes)
        x = torch.from_numpy(levels.astype(np.int32))[0]
        w = torch.from_numpy(weights.astype(np.int32))
        # Padding means zero, which is the zero point's level; the correction for it is exact on every device.
        x = torch.nn.functional.pad(x, (begin[1], end[1], begin[0], end[0]), value=int(zero))
        rows = (x.shape[1] - w.shape[2]) // strides[0] + 1
        columns = (x.shape[2] - w.shape[3]) // strides[1] + 1
        total = torch.zeros(w.shape[0], rows * columns, dtype=torch.int64)
        for i in range(w.shape[2]):
            for j in range(w.shape[3]):
                part = x[:, i : i + rows * strides[0] : strides[0], j : j + columns * strides[1] : strides[1]]
                total += saturating_sums(part.reshape(len(x), -1), w[:, :, i, j])
        total -= int(zero) * w.sum(dim=(1, 2, 3))[:, None]
        real = total.numpy() * (np.asarray(scale) * np.asarray(weight_scale).reshape(-1, 1))
        if len(inputs) > 5:
            real = real + np.asarray(inputs[5]).reshape(-1, 1)
        return (real.reshape(1, len(w), rows, columns).astype(np.float32),)


class QuantizeLinear(OpRun):
    """As ONNX says; the reference evaluator has it from opset 19 on only."""

    op_domain = ""

    def _run(self, x: Array, scale: Array, zero: Array, axis: int | None = None, **_: Any) -> tuple[Array]:
        along = _along(np.ndim(x), np.ndim(scale), axis)
        levels = np.rint(x / scale.reshape(along)) + zero.reshape(along).astype(np.float32)
        bounds = np.iinfo(zero.dtype)
        return (np.clip(levels, bounds.min, bounds.max).astype(zero.dtype),)


class DequantizeLinear(OpRun):
    """As ONNX says, likewise."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, zero: Array | None = None, axis: int | None = None, **_: Any
    ) -> tuple[Array]:
        along = _along(np.ndim(x), np.ndim(scale), axis)
        shift = 0 if zero is None else zero.reshape(along).astype(np.int32)
        return (((x.astype(np.int32) - shift) * scale.reshape(along)).astype(np.float32),)


OPERATORS = [Conv, SaturatingConv, QuantizeLinear, DequantizeLinear]


def _along(rank: int, scale_rank: int, axis: int | None) -> tuple[int, ...]:
    """The shape that lines a scale up with its axis (1 unless said) of a tensor; () for a scalar scale."""
    if scale_rank == 0:
        return ()
    return tuple(-1 if i == (1 if axis is None else axis) % rank else 1 for i in range(rank))


def _geometry(attributes: Mapping[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """Padding at the beginning and at the end of (height, width), and strides."""
    pads = list(attributes.get("pads") or [0, 0, 0, 0])
    return pads[:2], pads[2:], list(attributes.get("strides") or [1, 1])
