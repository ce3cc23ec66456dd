"""The nodes and constants of an ONNX file, read without an ONNX library; weights are not touched unless asked for."""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from runtimes._onnx_wire import INT, SPAN, TABLE, TEXT, TEXTS, Found, Walk, WireError

_TENSOR = {2: ("data_type", INT), 4: ("float_data", SPAN), 5: ("int32_data", SPAN), 9: ("raw_data", SPAN)}
NODES = {
    **TABLE,
    "NodeProto": {**TABLE["NodeProto"], 1: ("input", TEXTS), 2: ("output", TEXTS)},
    "AttributeProto": {**TABLE["AttributeProto"], 1: ("name", TEXT), 3: ("i", INT)},
    "TensorProto": {**TABLE["TensorProto"], **_TENSOR},
}
# TensorProto.DataType.
FLOAT, UINT8, INT8, HALF, BFLOAT = 1, 2, 3, 10, 16
_PACKED = {FLOAT: "<f4", HALF: "<f2", INT8: "i1"}


class OnnxGraph:
    """A model's top graph, and what stands in it by name: `constants` (initializers and Constant nodes), `makers` (the
    node that has this output), `readers` (the nodes that have this input)."""

    def __init__(self, data: mmap.mmap) -> None:
        """`data`: the file, which must stay open. Raises WireError, or UnicodeDecodeError for a broken name."""
        model = Walk(data, lambda kind, found: True, NODES).model()
        graphs = model.get("graph", [])
        if len(graphs) != 1:
            raise WireError(f"it holds {len(graphs)} graphs")
        self._data = data
        self._graph: Found = graphs[0]
        opsets = {one(each, "domain", ""): one(each, "version", 0) for each in model.get("opset_import", [])}
        self.opset: int = max(opsets.get("", 0), opsets.get("ai.onnx", 0))
        self.nodes: list[Found] = self._graph.get("node", [])
        self.constants = {one(each, "name", ""): each for each in self._graph.get("initializer", [])}
        self.makers: dict[str, Found] = {}
        self.readers: dict[str, list[Found]] = defaultdict(list)
        for node in self.nodes:
            value = attribute(node, "value", "t") if kind_of(node) == "Constant" else None
            self.makers |= dict.fromkeys(node.get("output", []), node)
            self.constants |= dict.fromkeys(node.get("output", []) if value is not None else (), value)
            for name in node.get("input", []):
                self.readers[name].append(node)

    @property
    def external(self) -> tuple[str, ...]:
        """Side files that hold constants, as they are named."""
        entries = [entry for each in self.constants.values() for entry in each.get("external_data", [])]
        return tuple(dict.fromkeys(one(entry, "value", "") for entry in entries if one(entry, "key") == "location"))

    def ports(self, side: str) -> Iterator[tuple[str, int, list[int | None]]]:
        """Name, DataType and shape (None where it is free) of what a caller feeds (`input`) or gets (`output`)."""
        for port in self._graph.get(side, []):
            if one(port, "name", "") in self.constants:
                continue
            kinds = [kind for each in port.get("type", []) for kind in each.get("tensor_type", [])]
            dims = [dim for kind in kinds for shape in kind.get("shape", []) for dim in shape.get("dim", [])]
            elem = one(kinds[0], "elem_type", 0) if kinds else 0
            yield one(port, "name", ""), elem, [one(dim, "dim_value") for dim in dims]

    def everywhere(self) -> Iterator[Found]:
        """All nodes, those of subgraphs as well."""
        yield from _all_nodes(self.nodes)

    def numbers(self, tensor: Found) -> np.ndarray[Any, Any]:
        """The numbers of a small constant; of one that is not packed as usual, its bytes."""
        dtype = _PACKED.get(one(tensor, "data_type"), "u1")
        for field, kind in (("raw_data", dtype), ("float_data", dtype), ("int32_data", "u1")):
            if parts := tensor.get(field):
                joined = b"".join(self._data[start:end] for start, end in parts)
                return np.frombuffer(joined, kind if len(joined) % np.dtype(kind).itemsize == 0 else "u1")
        return np.zeros(0, "u1")


def one(found: Found, name: str, default: Any = None) -> Any:
    """A field that comes once."""
    return found.get(name, [default])[-1]


def kind_of(node: Found) -> str:
    """A node's operator."""
    return str(one(node, "op_type", ""))


def attribute(node: Found, name: str, field: str) -> Any:
    """One field (`i`, `t`) of a node's attribute, or None."""
    return next((one(each, field) for each in node.get("attribute", []) if one(each, "name") == name), None)


def _all_nodes(nodes: Sequence[Found]) -> Iterator[Found]:
    for node in nodes:
        yield node
        for each in node.get("attribute", []):
            for graph in [*each.get("g", []), *each.get("graphs", [])]:
                yield from _all_nodes(graph.get("node", []))
