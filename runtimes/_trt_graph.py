"""What a graph asks of TensorRT, read without it: refusals in a blink instead of after minutes, and the arithmetic.

TensorRT's networks are strongly typed here (11 has no others), so a graph is computed in the types that it says. Its
parser and builder (RTX 1.7) refuse what is refused below, but for what they take and answer wrongly (UINT8 Q/DQ is
read as INT8, and so is a missing zero point, which in ONNX means UINT8), and what other versions may not take: scales
that are computed, operators of other domains, opsets that are not promised.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtimes._errors import Unavailable
from runtimes._onnx_graph import BFLOAT, FLOAT, HALF, INT8, UINT8, OnnxGraph, attribute, kind_of, one
from runtimes._onnx_wire import Found, WireError

# Since opset 9 TensorRT reads all; 22 is what the parser of 10.16 knows.
OPSETS = range(9, 23)
# The operators of those opsets that its parser knows, as its own `supports_operator` says.
_OPERATORS = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less
LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish
Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Scan
Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
Where Xor
"""
_KNOWN = frozenset(_OPERATORS.split())
_HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
# What may stand between a DequantizeLinear and the product that it is for.
_MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_ROUNDS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# TensorProto.DataType, from 1 on.
_NAMES = (
    *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "float64"),
    *("uint32", "uint64", "complex64", "complex128", "bfloat16"),
)
_PORTS = frozenset({"float32", "uint8", "int8", "int32", "int64", "bool", "float16", "bfloat16"})
_FLOATS = {FLOAT: "f32", HALF: "f16", BFLOAT: "bf16"}
_SHOWN = 3  # refusals that one message quotes


@dataclass(frozen=True)
class TrtGraph:
    """A graph that TensorRT takes. `compute`: its arithmetic, such as `f16` or `int8+f16`. `external`: side files,
    relative to it, that hold weights."""

    compute: str
    external: tuple[str, ...]


def read_graph(path: Path) -> TrtGraph:
    """Read a graph and refuse what TensorRT would refuse.

    Raises Unavailable naming the first nodes that are refused, and why; and for a file that is no ONNX graph.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            graph = OnnxGraph(data)
            refused = [*_refused(graph)]
            found = TrtGraph(_compute(graph), graph.external)
    except (OSError, ValueError, WireError) as error:  # UnicodeDecodeError is a ValueError, an empty file another
        raise Unavailable(f"TensorRT cannot open {path.name}: it is not a readable ONNX file: {error}") from error
    if refused:
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise Unavailable(
            f"TensorRT would refuse {path.name}: {'; '.join(refused[:_SHOWN])}{more}. Take a variant that is made for "
            "it: fp32, fp16-trt or int8-trt"
        )
    return found


def _refused(graph: OnnxGraph) -> Iterator[str]:
    """What TensorRT would refuse, a sentence each."""
    if graph.opset not in OPSETS:
        yield f"its opset is {graph.opset}, and {OPSETS[0]} to {OPSETS[-1]} are read"
    for domain, kind in dict.fromkeys((one(node, "domain", ""), kind_of(node)) for node in graph.everywhere()):
        if domain not in ("", "ai.onnx") or kind not in _KNOWN:
            yield f"the operator {f'{domain}.' if domain else ''}{kind} is unknown to it"
    yield from _ports(graph)
    for node in graph.nodes:
        if kind_of(node) in _ROUNDS:
            yield from _rounding(graph, node)
    for name, constant in graph.constants.items():
        readers = {kind_of(node) for node in graph.readers[name]}
        if one(constant, "data_type") == INT8 and not readers <= _ROUNDS:
            yield f"the int8 constant {name!r} is read by something else than a DequantizeLinear"


def _ports(graph: OnnxGraph) -> Iterator[str]:
    for side in ("input", "output"):
        for name, dtype, shape in graph.ports(side):
            if _name(dtype) not in _PORTS:
                yield f"its {side} {name!r} is of {_name(dtype)}, which it has not"
            if side == "output":
                continue
            if None in shape[1:]:
                yield f"its input {name!r} has a free dimension besides the first, the batch"
            strange = [kind_of(node) for node in graph.readers[name] if kind_of(node) != "Cast"]
            if dtype == UINT8 and strange:
                yield f"its uint8 input {name!r} is read by {strange[0]}, and only Cast may"


def _rounding(graph: OnnxGraph, node: Found) -> Iterator[str]:
    """What is wrong with a QuantizeLinear or DequantizeLinear: only int8, symmetric, with constant scales, will do."""
    kind, (source, scale, zero) = kind_of(node), (*node.get("input", []), "", "", "")[:3]
    what = f"{kind} of {source!r}"
    told, stored, scales = graph.constants.get(zero), graph.constants.get(source), graph.constants.get(scale)
    dtype = one(told or {}, "data_type") or attribute(node, "output_dtype", "i")
    if kind == "DequantizeLinear":  # the type is that of what it reads; where that is computed, its Q has told
        dtype = dtype or one(stored or {}, "data_type", INT8)
    if zero and told is None:
        yield f"{what} has a zero point that is no constant"
    elif dtype != INT8:
        found = _name(dtype) if dtype else "uint8, as no zero point says otherwise"
        yield f"{what} rounds to {found}, and it computes in int8 only"
    elif told is not None and graph.numbers(told).any():
        yield f"{what} is asymmetric, and its zero point must be 0"
    if scales is None:
        yield f"{what} has a scale that is no constant"
    elif not _positive(graph.numbers(scales)):
        yield f"{what} has a scale that is not above 0"


def _compute(graph: OnnxGraph) -> str:
    """The arithmetic of convolutions and products, integer first: `int8+f16`, `f32`."""
    integer, floats = False, set()
    for node in graph.nodes:
        if kind_of(node) not in _HEAVY:
            continue
        sources = [_source(graph, name) for name in node.get("input", [])[:2]]
        integer |= len(sources) == 2 and all(rounds for _, rounds in sources)
        for name, _ in sources:
            dtype = one(graph.constants.get(name, {}), "data_type")
            floats |= {_FLOATS[dtype]} if dtype in _FLOATS else set()
    casts = [attribute(node, "to", "i") for node in graph.nodes if kind_of(node) == "Cast"]
    floats = floats or {next((_FLOATS[to] for to in casts if to in _FLOATS), "f32")}
    return "+".join((["int8"] if integer else []) + sorted(floats))


def _source(graph: OnnxGraph, name: str) -> tuple[str, bool]:
    """What a product reads, behind what only moves it: its name (a scale's, if it was rounded), and whether it was."""
    maker = graph.makers.get(name)
    while maker is not None and kind_of(maker) in _MOVES:
        name = maker["input"][0]
        maker = graph.makers.get(name)
    if maker is not None and kind_of(maker) == "DequantizeLinear":
        return (*maker["input"], "", "")[1], True
    return name, False


def _name(dtype: int) -> str:
    return _NAMES[dtype - 1] if 1 <= dtype <= len(_NAMES) else f"type {dtype}"


def _positive(scale: np.ndarray[Any, Any]) -> bool:
    return bool((scale > 0).all() and np.isfinite(scale).all()) if scale.dtype.kind == "f" else True
