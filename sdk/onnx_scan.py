"""What an ONNX file holds, and whether an engine may open it.

A graph file is hostile input: its tensors may point at files anywhere on the machine, and engines follow. So every
graph of a bundle passes here first.
"""

from __future__ import annotations

import math
import mmap
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from runtimes import BundleError
from runtimes._onnx_wire import Found, Walk, WireError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Operators of com.microsoft that load a file or run code which the model names.
_REFUSED_OPS = frozenset({"EPContext", "PythonOp", "PythonOpGrad"})
# What makes a small file run for ever, answer by chance, or allocate a size that only running it tells. Exporters that
# write ConstantOfShape or Range do it for shapes, and those our writer folds.
_BOUNDLESS_OPS = frozenset(
    {
        *("Bernoulli", "ConstantOfShape", "Loop", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike", "Range", "Scan", "SequenceMap"),
    }
)
_MAX_RANK = 64
# TensorProto.DataType, from 1 on, by NumPy's (ml_dtypes') names.
_ELEM_TYPES = (
    *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "float64"),
    *("uint32", "uint64", "complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"),
    *("float8_e5m2fnuz", "uint4", "int4", "float4_e2m1fn"),
)
# Noted when they end, and of no use to their parent: kept, they would pile up.
_DROPPED = frozenset({"NodeProto", "AttributeProto", "FunctionProto", "TrainingInfoProto", "SparseTensorProto"})


class OnnxTensor(NamedTuple):
    """A graph input or output: its name, its dtype by NumPy's name, its shape with None where it is free."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class OnnxFacts:
    """What `scan_onnx` found. `opset` is that of the default domain (0: none); `domains` those that nodes and functions
    use; `inputs` those a caller must feed (no initializers); `op_types` counts nodes, subgraphs and functions included;
    `external` every file that a tensor anywhere points at; `max_elements` the size of the largest stored tensor.
    """

    ir_version: int
    opset: int
    domains: frozenset[str]
    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    op_types: Counter[str]
    external: tuple[str, ...]
    max_elements: int


def scan_onnx(path: str | Path) -> OnnxFacts:
    """Read the facts of an ONNX file without an ONNX library and without reading its weights.

    Raises BundleError when the file is missing, cut, not ONNX, nested or numerous beyond reason, or when one of its
    inputs or outputs is not a tensor of a stated rank.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise WireError("no such file")
        notes = _Notes()
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            model = Walk(data, notes.note).model()
        return _facts(model, notes)
    except (OSError, ValueError) as error:  # ValueError: WireError, UnicodeDecodeError, an empty file
        raise BundleError(
            f"{path.name!r} is not a readable ONNX file: {error}; fetch or make the bundle again"
        ) from None


def check_onnx(
    path: str | Path, *, allowed_external: Collection[str] = (), max_ir: int = 9, max_elements: int = 2**28
) -> OnnxFacts:
    """Scan an ONNX file and refuse what must not reach an engine; returns its facts.

    `allowed_external`: the side files, relative to the graph, that the bundle lists (and has hashed); `max_elements`
    bounds every input, output (free dimensions count as 1) and stored tensor.

    Raises BundleError as `scan_onnx` does, and for external data outside `allowed_external`, an IR version above
    `max_ir`, a custom operator domain, an operator that loads files or has no bound, a dimension below 1 or a shape too
    large.
    """
    facts, name = scan_onnx(path), repr(Path(path).name)
    _check_external(facts.external, allowed_external, name)
    if facts.ir_version > max_ir:
        raise BundleError(f"{name} wanted IR version <= {max_ir}, got {facts.ir_version}; pack it with a lower one")
    if unknown := sorted(facts.domains - DOMAINS):
        raise BundleError(f"{name} wanted standard operators, got domains {unknown}; export it without custom ops")
    if refused := sorted(_REFUSED_OPS & set(facts.op_types)):
        raise BundleError(f"{name} wanted operators that load nothing, got {refused}; do not use this bundle")
    if refused := sorted(_BOUNDLESS_OPS & set(facts.op_types)):
        raise BundleError(
            f"{name} wanted operators of fixed cost and answer, got {refused}; fold them and export again"
        )
    for tensor in facts.inputs + facts.outputs:
        if any(side is not None and side < 1 for side in tensor.shape):
            raise BundleError(f"{name} wanted dimensions >= 1, got {tensor.name!r} {tensor.shape}; export it again")
        if math.prod(side or 1 for side in tensor.shape) > max_elements:
            raise BundleError(
                f"{name} wanted <= {max_elements} elements, got {tensor.name!r} {tensor.shape}; shrink it"
            )
    if facts.max_elements > max_elements:
        raise BundleError(f"{name} wanted tensors <= {max_elements} elements, got {facts.max_elements}; shrink it")
    return facts


def _check_external(locations: Collection[str], allowed: Collection[str], name: str) -> None:
    for location in locations:
        parts = re.split(r"[/\\]", location)
        if not location.isprintable() or location[:1] in ("", "/") or ".." in parts or set(location) & set(":\\"):
            raise BundleError(
                f"{name} wanted external data inside the bundle, got {location!r}; do not use this bundle"
            )
        if location not in allowed:
            raise BundleError(f"{name} wanted only listed external data, got {location!r}; make the bundle again")


@dataclass
class _Notes:
    """What is noted while walking, message by message."""

    domains: set[str] = field(default_factory=set)
    op_types: Counter[str] = field(default_factory=Counter)
    external: dict[str, None] = field(default_factory=dict)  # an ordered set
    max_elements: int = 0

    def note(self, kind: str, found: Found) -> bool:
        if kind == "TensorProto":
            self._tensor(found)
        elif kind == "NodeProto":
            self.op_types.update(found.get("op_type", [""]))
        if kind in ("NodeProto", "FunctionProto"):
            self.domains.update(found.get("domain", [""]))
        return kind not in _DROPPED

    def _tensor(self, found: Found) -> None:
        # Whatever data_location says: which of the two an engine believes is its own affair.
        for entry in found.pop("external_data", []):
            if entry.get("key") == ["location"]:
                self.external.update(dict.fromkeys(entry.get("value", [""])))
        dims = found.pop("dims", [])
        if len(dims) > _MAX_RANK or any(side < 0 for side in dims):
            raise WireError(f"a stored tensor has {len(dims)} dimensions, the first being {dims[:4]}")
        self.max_elements = max(self.max_elements, math.prod(dims))


def _facts(model: Found, notes: _Notes) -> OnnxFacts:
    if "graph" not in model:
        raise WireError("it holds no graph")
    graph: Found = {}
    for part in model["graph"]:  # protobuf merges a message that came twice
        for name, items in part.items():
            graph.setdefault(name, []).extend(items)
    stored = {_name(each) for each in graph.get("initializer", [])}
    opsets = [each for each in model.get("opset_import", []) if each.get("domain", [""])[0] in ("", "ai.onnx")]
    return OnnxFacts(
        ir_version=model.get("ir_version", [0])[-1],
        opset=max((each.get("version", [0])[-1] for each in opsets), default=0),
        domains=frozenset(notes.domains),
        inputs=tuple(_value(each) for each in graph.get("input", []) if _name(each) not in stored),
        outputs=tuple(_value(each) for each in graph.get("output", [])),
        op_types=notes.op_types,
        external=tuple(notes.external),
        max_elements=notes.max_elements,
    )


def _name(found: Found) -> str:
    return str(found.get("name", [""])[0])


def _value(found: Found) -> OnnxTensor:
    types = [each for kind in found.get("type", []) for each in kind.get("tensor_type", [])]
    shapes = [each for kind in types for each in kind.get("shape", [])]
    elem = [each for kind in types for each in kind.get("elem_type", [])]
    dims = tuple(dim.get("dim_value", [None])[-1] for each in shapes for dim in each.get("dim", []))
    if not shapes or not elem or len(dims) > _MAX_RANK:
        raise WireError(f"its input or output {_name(found)!r} is not a tensor of a stated type and rank")
    known = 1 <= elem[-1] <= len(_ELEM_TYPES)
    return OnnxTensor(_name(found), _ELEM_TYPES[elem[-1] - 1] if known else f"type {elem[-1]}", dims)
