"""Protobuf's wire format, walked by a table of ONNX's fields. The device has no onnx package.

Only the fields in the table are looked at, the rest is skipped by its length, so a big file costs no memory and its
weights are never touched. A test holds the tables against the real package's descriptors.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Any

MAX_DEPTH = 32  # messages inside each other; a graph in a graph costs three
MAX_FIELDS = 1_000_000  # some seconds of walking; a graph of 3,000 nodes has some 40,000
_MAX_TEXT = 4096

INT, INTS, TEXT = "int", "ints", "text"
TEXTS = "texts"  # a text field that may come many times
SPAN = "span"  # bytes that are not read: where they start and end in the file
# message -> field number -> (name, scalar kind or message). Every place where a tensor can hide is here.
TABLE: dict[str, dict[int, tuple[str, str]]] = {
    "ModelProto": {
        1: ("ir_version", INT),
        7: ("graph", "GraphProto"),
        8: ("opset_import", "OperatorSetIdProto"),
        20: ("training_info", "TrainingInfoProto"),
        25: ("functions", "FunctionProto"),
    },
    "GraphProto": {
        1: ("node", "NodeProto"),
        5: ("initializer", "TensorProto"),
        11: ("input", "ValueInfoProto"),
        12: ("output", "ValueInfoProto"),
        15: ("sparse_initializer", "SparseTensorProto"),
    },
    "NodeProto": {4: ("op_type", TEXT), 5: ("attribute", "AttributeProto"), 7: ("domain", TEXT)},
    "AttributeProto": {
        5: ("t", "TensorProto"),
        6: ("g", "GraphProto"),
        10: ("tensors", "TensorProto"),
        11: ("graphs", "GraphProto"),
        22: ("sparse_tensor", "SparseTensorProto"),
        23: ("sparse_tensors", "SparseTensorProto"),
    },
    "TensorProto": {1: ("dims", INTS), 8: ("name", TEXT), 13: ("external_data", "StringStringEntryProto")},
    "SparseTensorProto": {1: ("values", "TensorProto"), 2: ("indices", "TensorProto"), 3: ("dims", INTS)},
    "StringStringEntryProto": {1: ("key", TEXT), 2: ("value", TEXT)},
    "FunctionProto": {
        7: ("node", "NodeProto"),
        10: ("domain", TEXT),
        11: ("attribute_proto", "AttributeProto"),
    },
    "TrainingInfoProto": {1: ("initialization", "GraphProto"), 2: ("algorithm", "GraphProto")},
    "OperatorSetIdProto": {1: ("domain", TEXT), 2: ("version", INT)},
    "ValueInfoProto": {1: ("name", TEXT), 2: ("type", "TypeProto")},
    "TypeProto": {1: ("tensor_type", "TypeProto.Tensor")},
    "TypeProto.Tensor": {1: ("elem_type", INT), 2: ("shape", "TensorShapeProto")},
    "TensorShapeProto": {1: ("dim", "TensorShapeProto.Dimension")},
    "TensorShapeProto.Dimension": {1: ("dim_value", INT)},
}
# A message's tabled fields, each a list of what came (of a text only the last, as in protobuf).
Found = dict[str, list[Any]]


class WireError(ValueError):
    """Bytes that are not protobuf, or more of it than a model ever needs."""


class Walk:
    """One walk over one file. `note(kind, found)` sees each message as it ends; False drops it from its parent."""

    def __init__(
        self, data: mmap.mmap, note: Callable[[str, Found], bool], table: dict[str, dict[int, tuple[str, str]]] = TABLE
    ) -> None:
        self._data = data
        self._note = note
        self._table = table
        self._fields_left = MAX_FIELDS

    def model(self) -> Found:
        """Walk the whole file as a ModelProto. Raises WireError, or UnicodeDecodeError for a broken name."""
        return self._message("ModelProto", 0, len(self._data), 0)

    def _message(self, kind: str, start: int, end: int, depth: int) -> Found:
        if depth > MAX_DEPTH:
            raise WireError(f"it is nested deeper than {MAX_DEPTH} messages")
        found: Found = {}
        table = self._table[kind]
        for number, wire, first, last in self._fields(start, end):
            name, what = table.get(number, ("", ""))
            # As in protobuf, a known field of another wire type counts as unknown and is skipped.
            if wire == 0 and what in (INT, INTS):
                found.setdefault(name, []).append(first)
            elif wire == 2 and what == INTS:
                found.setdefault(name, []).extend(self._packed(first, last))
            elif wire == 2 and what == TEXT:
                found[name] = [self._text(first, last)]
            elif wire == 2 and what == TEXTS:
                found.setdefault(name, []).append(self._text(first, last))
            elif wire == 2 and what == SPAN:
                found.setdefault(name, []).append((first, last))
            elif wire == 2 and what in self._table:
                child = self._message(what, first, last, depth + 1)
                if self._note(what, child):
                    found.setdefault(name, []).append(child)
        return found

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(field number, wire type, start, end) of each field of a message; of a number (..., value, 0)."""
        while at < end:
            self._count()
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise WireError(f"field number {number} before byte {at}")
            size = 8 if wire == 1 else 4
            if wire == 0:
                value, at = self._varint(at, end)
                yield number, wire, value, 0
                continue
            if wire == 2:
                size, at = self._varint(at, end)
            elif wire not in (1, 5):
                raise WireError(f"wire type {wire} before byte {at}")
            if not 0 <= size <= end - at:
                raise WireError(f"a field of {size} bytes at byte {at} reaches past its end")
            yield number, wire, at, at + size
            at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The number at `at` (signed, 64 bit), and where the next thing starts."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise WireError(f"a number is cut at byte {at}")
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                value &= 2**64 - 1
                return (value - 2**64 if value >> 63 else value), at
        raise WireError(f"a number is longer than 10 bytes before byte {at}")

    def _packed(self, at: int, end: int) -> Iterator[int]:
        while at < end:
            self._count()
            value, at = self._varint(at, end)
            yield value

    def _text(self, start: int, end: int) -> str:
        if end - start > _MAX_TEXT:
            raise WireError(f"a name of {end - start} bytes at byte {start}")
        return self._data[start:end].decode()

    def _count(self) -> None:
        self._fields_left -= 1
        if self._fields_left < 0:
            raise WireError(f"it has more than {MAX_FIELDS} fields")
