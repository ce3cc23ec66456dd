"""Real ONNX files, made with the onnx package, against the reader that does without it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtimes._onnx_wire
from runtimes import BundleError
from runtimes._onnx_wire import INT, INTS, TABLE, TEXT
from sdk.onnx_scan import OnnxTensor, check_onnx, scan_onnx

SECRET = "../../etc/passwd"


def outside(location: str = SECRET, name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value="0")
    return tensor


def sparse(values: TensorProto | None = None, indices: TensorProto | None = None) -> onnx.SparseTensorProto:
    tensors = (
        values or numpy_helper.from_array(np.zeros(2, np.float32), "s"),
        indices or numpy_helper.from_array(np.zeros(2, np.int64)),
    )
    return onnx.SparseTensorProto(values=tensors[0], indices=tensors[1], dims=[4])


def graph(*nodes: onnx.NodeProto, weights: Any = ()) -> onnx.GraphProto:
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 8, 3])
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 8, 8, 3])
    base = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["float", "bias"], ["out"]),
    ]
    bias = numpy_helper.from_array(np.ones(3, np.float32), "bias")
    return helper.make_graph([*base, *nodes], "tiny", [image, ids], [out], [bias, *weights])


def model(of: onnx.GraphProto | None = None, ir: int = 9, **options: Any) -> onnx.ModelProto:
    made: onnx.ModelProto = helper.make_model(of or graph(), opset_imports=[helper.make_opsetid("", 17)], **options)
    made.ir_version = ir
    return made


def write(folder: Path, made: onnx.ModelProto | bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


def node(**attribute: Any) -> onnx.NodeProto:
    """A Constant node with one attribute, set field by field (the helper knows no graphs of secrets)."""
    made = onnx.NodeProto(op_type="Constant", output=["c"])
    made.attribute.add(name="value", **attribute)
    return made


def deep_graph(inner: onnx.GraphProto, levels: int) -> onnx.GraphProto:
    for _ in range(levels):
        inner = onnx.GraphProto(name="g", node=[node(type=onnx.AttributeProto.GRAPH, g=inner)])
    return inner


# --- the table


def test_table_is_the_real_one() -> None:
    for name, fields in TABLE.items():
        kind = onnx.ModelProto.DESCRIPTOR.file
        descriptor = kind.message_types_by_name[name.split(".")[0]]
        for part in name.split(".")[1:]:
            descriptor = descriptor.nested_types_by_name[part]
        for number, (field_name, what) in fields.items():
            field = descriptor.fields_by_number[number]
            assert field.name == field_name, (name, number)
            if what in (INT, INTS):
                assert field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_ENUM)
            elif what == TEXT:
                assert field.type in (field.TYPE_STRING, field.TYPE_BYTES)
            else:
                assert field.message_type.full_name.endswith("." + what), (name, number)


def test_no_tensor_can_hide_outside_the_table() -> None:
    """Every field of every message that can lead to a TensorProto or a node is tabled, also in a newer onnx package."""

    def leads(descriptor: Any, seen: tuple[str, ...] = ()) -> bool:
        if descriptor.name in ("TensorProto", "NodeProto"):
            return True
        if descriptor.full_name in seen:
            return False
        inner = [field.message_type for field in descriptor.fields if field.message_type]
        return any(leads(each, (*seen, descriptor.full_name)) for each in inner)

    for name, descriptor in onnx.ModelProto.DESCRIPTOR.file.message_types_by_name.items():
        for field in descriptor.fields:
            if name in TABLE and field.message_type and leads(field.message_type):
                assert field.number in TABLE[name], (name, field.name)


def test_elem_types_are_the_real_ones(tmp_path: Path) -> None:
    for number, name in [(number, name) for name, number in TensorProto.DataType.items() if name != "UNDEFINED"]:
        made = graph()
        made.output[0].type.tensor_type.elem_type = number
        kind = scan_onnx(write(tmp_path, model(made))).outputs[0].dtype
        if name == "STRING":
            assert kind == "string"
        elif not kind.startswith("type "):
            assert kind == str(helper.tensor_dtype_to_np_dtype(number))
    made.output[0].type.tensor_type.elem_type = 77
    assert scan_onnx(write(tmp_path, model(made))).outputs[0].dtype == "type 77"


# --- facts


def test_facts(tmp_path: Path) -> None:
    made = model()
    made.opset_import.add(domain="com.microsoft", version=1)
    facts = scan_onnx(str(write(tmp_path, made)))
    assert (facts.ir_version, facts.opset, facts.domains) == (9, 17, frozenset({""}))
    image = OnnxTensor("image", "uint8", (None, 8, 8, 3))
    assert facts.inputs == (image, OnnxTensor("ids", "int64", (1, 4)))
    assert facts.outputs == (OnnxTensor("out", "float32", (None, 8, 8, 3)),)
    assert dict(facts.op_types) == {"Cast": 1, "Add": 1}
    assert facts.external == () and facts.max_elements == 3
    assert check_onnx(tmp_path / "model.onnx") == facts


def test_initializers_are_not_inputs_and_scalars_have_no_sides(tmp_path: Path) -> None:
    made = graph()
    made.input.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, [3]))
    made.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, []))
    facts = scan_onnx(write(tmp_path, model(made)))
    assert [each.name for each in facts.inputs] == ["image", "ids", "scale"]
    assert facts.inputs[-1].shape == ()


def test_nodes_of_subgraphs_and_functions_count(tmp_path: Path) -> None:
    inner = helper.make_graph([helper.make_node("Neg", ["a"], ["b"], domain="inner")], "inner", [], [])
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    facts = scan_onnx(write(tmp_path, model(deep_graph(inner, 3), functions=[function])))
    assert facts.op_types["Neg"] == facts.op_types["Relu"] == 1
    assert facts.domains == {"", "inner", "own"}


def test_packed_and_unpacked_dims_are_the_same(tmp_path: Path) -> None:
    tensor = bytes([0x0A, 3, 2, 0x80, 0x01])  # dims = [2, 128], packed
    wire = bytes([0x3A, len(tensor) + 2, 0x2A, len(tensor)]) + tensor
    assert onnx.ModelProto.FromString(wire).graph.initializer[0].dims == [2, 128]
    assert scan_onnx(write(tmp_path, wire)).max_elements == 256


def test_a_big_file_is_skipped_not_read(tmp_path: Path) -> None:
    big = numpy_helper.from_array(np.zeros(2**24, np.float32), "big")
    path = write(tmp_path, model(graph(weights=[big])))
    tracemalloc.start()
    facts, peak = scan_onnx(path), tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert facts.max_elements == 2**24 and path.stat().st_size > 2**26
    assert peak < 2**20


# --- external data, in every place

HIDING_PLACES: dict[str, Callable[[], onnx.ModelProto]] = {
    "initializer": lambda: model(graph(weights=[outside()])),
    "attribute t": lambda: model(graph(node(t=outside()))),
    "attribute tensors": lambda: model(graph(node(tensors=[outside()]))),
    "attribute sparse": lambda: model(graph(node(sparse_tensor=sparse(outside())))),
    "attribute sparse list": lambda: model(graph(node(sparse_tensors=[sparse(), sparse(None, outside())]))),
    "subgraph g": lambda: model(graph(node(g=deep_graph(graph(weights=[outside()]), 4)))),
    "subgraph graphs": lambda: model(graph(node(graphs=[graph(), graph(node(t=outside()))]))),
    "untyped attribute": lambda: model(graph(node(type=onnx.AttributeProto.INT, i=1, t=outside()))),
}


def _sparse_initializer(values: TensorProto | None, indices: TensorProto | None) -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.append(sparse(values, indices))
    return made


def _function() -> onnx.ModelProto:
    made = model()
    made.functions.add(name="F", domain="", node=[node(t=outside())])
    return made


def _function_default() -> onnx.ModelProto:
    made = model()
    made.functions.add(name="F", domain="").attribute_proto.add(name="a", t=outside())
    return made


def _training(where: str) -> onnx.ModelProto:
    made = model()
    getattr(made.training_info.add(), where).initializer.append(outside())
    return made


def _unmarked() -> onnx.ModelProto:
    tensor = outside()
    tensor.data_location = TensorProto.DEFAULT
    return model(graph(weights=[tensor]))


HIDING_PLACES |= {
    "sparse values": lambda: _sparse_initializer(outside(), None),
    "sparse indices": lambda: _sparse_initializer(None, outside()),
    "function": _function,
    "function default": _function_default,
    "training initialization": lambda: _training("initialization"),
    "training algorithm": lambda: _training("algorithm"),
    "not marked external": _unmarked,
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_external_data_is_found_everywhere(place: str, tmp_path: Path) -> None:
    path = write(tmp_path, HIDING_PLACES[place]())
    assert scan_onnx(path).external == (SECRET,)
    with pytest.raises(BundleError, match=r"wanted external data inside the bundle, got '../../etc/passwd'"):
        check_onnx(path, allowed_external=["model.onnx.data"])


def test_a_model_sent_in_two_parts_is_one_model(tmp_path: Path) -> None:
    """Protobuf merges concatenated messages; a reader that stops after the first would miss the second."""
    second = onnx.ModelProto(graph=onnx.GraphProto(initializer=[outside()]))
    facts = scan_onnx(write(tmp_path, model().SerializeToString() + second.SerializeToString()))
    assert facts.external == (SECRET,) and facts.opset == 17 and len(facts.inputs) == 2
    entry = onnx.StringStringEntryProto(key="offset", value=SECRET).SerializeToString() + b"\x0a\x08location"
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    wire = b"\x3a" + bytes([len(tensor) + 2]) + b"\x2a" + bytes([len(tensor)]) + tensor
    assert scan_onnx(write(tmp_path, wire)).external == (SECRET,)


@pytest.mark.parametrize(
    "location",
    [
        *("/etc/passwd", "../w.bin", "a/../../w.bin", "C:\\w.bin", "c:w.bin", "..\\w.bin", "a\\w.bin", "\\\\host\\w"),
        *(
            "http://host/w.bin",
            "file:///etc/passwd",
            "w.bin:stream",
            "",
            "w.bin\0.txt",
            "a\nb",
            "*/_ORT_MEM_ADDR_/*/..",
        ),
    ],
)
def test_locations_that_climb_out_are_refused_even_if_listed(location: str, tmp_path: Path) -> None:
    path = write(tmp_path, model(graph(weights=[outside(location)])))
    with pytest.raises(
        BundleError, match=r"wanted external data inside the bundle, got .*; do not use this bundle"
    ) as no:
        check_onnx(path, allowed_external=[location])
    assert "\n" not in str(no.value)


def test_only_listed_files_are_allowed(tmp_path: Path) -> None:
    weights = [outside("a.bin", "a"), outside("parts/b.bin", "b"), outside("a.bin", "c")]
    path = write(tmp_path, model(graph(weights=weights)))
    assert check_onnx(path, allowed_external=("a.bin", "parts/b.bin")).external == ("a.bin", "parts/b.bin")
    with pytest.raises(
        BundleError, match=r"'model.onnx' wanted only listed external data, got 'parts/b.bin'; make the"
    ):
        check_onnx(path, allowed_external=["a.bin"])
    path = write(tmp_path, model(graph(weights=[outside("*/_ORT_MEM_ADDR_/*")])))
    with pytest.raises(BundleError, match="wanted only listed external data"):  # ONNX Runtime reads raw memory there
        check_onnx(path)


# --- the other refusals


def test_versions_domains_and_operators(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="wanted IR version <= 9, got 10; pack it with a lower one"):
        check_onnx(write(tmp_path, model(ir=10)))
    assert check_onnx(tmp_path / "model.onnx", max_ir=10).ir_version == 10
    for domain in ("ai.onnx", "ai.onnx.ml", "com.microsoft"):
        check_onnx(write(tmp_path, model(graph(onnx.NodeProto(op_type="X", domain=domain)))))
    with pytest.raises(BundleError, match=r"wanted standard operators, got domains \['evil'\]; export it without"):
        check_onnx(write(tmp_path, model(graph(onnx.NodeProto(op_type="X", domain="evil")))))
    for boundless in ("Loop", "Scan", "ConstantOfShape", "Range", "RandomNormalLike", "Multinomial", "SequenceMap"):
        message = rf"wanted operators of fixed cost and answer, got \['{boundless}'\]; fold them and export again"
        with pytest.raises(BundleError, match=message):
            check_onnx(write(tmp_path, model(graph(onnx.NodeProto(op_type=boundless)))))
    with pytest.raises(BundleError, match=r"wanted operators that load nothing, got \['EPContext'\]"):
        check_onnx(write(tmp_path, model(graph(onnx.NodeProto(op_type="EPContext", domain="com.microsoft")))))


@pytest.mark.parametrize("shape", [[-1, 4], [1, 0], ["N", -(2**63)]])
def test_dimensions_below_one(shape: list[Any], tmp_path: Path) -> None:
    made = graph()
    made.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
    with pytest.raises(BundleError, match=r"wanted dimensions >= 1, got 'x' .*; export it again"):
        check_onnx(write(tmp_path, model(made)))


def test_absurd_sizes(tmp_path: Path) -> None:
    made = graph()
    made.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2**14, 2**14 + 1]))
    with pytest.raises(BundleError, match=r"wanted <= 268435456 elements, got 'y' .*; shrink it"):
        check_onnx(write(tmp_path, model(made)))
    check_onnx(tmp_path / "model.onnx", max_elements=2**29)
    path = write(tmp_path, model(graph(weights=[TensorProto(name="w", data_type=1, dims=[2**40, 2**20])])))
    with pytest.raises(BundleError, match=f"wanted tensors <= 268435456 elements, got {2**60}; shrink it"):
        check_onnx(path)


def test_inputs_without_a_rank(tmp_path: Path) -> None:
    for value in (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1]),
        onnx.ValueInfoProto(name="x"),
    ):
        made = graph()
        made.input.append(value)
        with pytest.raises(BundleError, match="input or output 'x' is not a tensor of a stated type and rank"):
            scan_onnx(write(tmp_path, model(made)))


# --- hostile bytes


def nested(levels: int) -> bytes:
    return model(deep_graph(graph(), levels)).SerializeToString()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cannot mmap an empty file"),
        (b"\x08\x09", "it holds no graph"),
        (b"\x08", "a number is cut at byte 1"),
        (b"\x08\x80\x80", "a number is cut at byte 3"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "a number is longer than 10 bytes"),
        (b"\x3a\x7f\x00", "a field of 127 bytes at byte 2 reaches past its end"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "a field of -1 bytes"),
        (b"\x79\x00", "a field of 8 bytes"),
        (b"\x7d\x00", "a field of 4 bytes"),
        (b"\x3b\x3c", "wire type 3 before byte 1"),
        (b"\x3c", "wire type 4"),
        (b"\x3e", "wire type 6"),
        (b"\x3f", "wire type 7"),
        (b"\x00\x00", "field number 0"),
        (b"\xff" * 9 + b"\x01\x00", "field number -1"),
        (b"\x80\x80\x80\x80\x80\x01\x00", "field number 4294967296"),
        (b"#!/bin/sh\nrm -rf\n", "wire type 3"),
        (b"\x3a\x06\x0a\x04\x22\x02\xff\xfe", "codec can't decode"),
        (b"\x3a\x87\x4e\x0a\x84\x4e\x22\x81\x4e" + b"x" * 9985 + b"y" * 5, "a name of 9985 bytes"),
        (model(graph(weights=[TensorProto(dims=[-3])])).SerializeToString(), r"has 1 dimensions, the first being \[-3"),
        (model(graph(weights=[TensorProto(dims=[1] * 65)])).SerializeToString(), "a stored tensor has 65 dimensions"),
        (nested(11), "it is nested deeper than 32 messages"),
    ],
)
def test_not_onnx(data: bytes, text: str, tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=f"'model.onnx' is not a readable ONNX file: .*{text}.*; fetch or make"
    ) as caught:
        scan_onnx(write(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path, "a\0b.onnx"):
        with pytest.raises(BundleError, match=r"is not a readable ONNX file: (no such file|embedded null)"):
            scan_onnx(path)


def test_nesting_within_reason_is_read(tmp_path: Path) -> None:
    assert scan_onnx(write(tmp_path, nested(8))).op_types["Constant"] == 8


def test_too_many_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes._onnx_wire, "MAX_FIELDS", 50_000)
    empty_nodes = b"\x0a\x00" * 50_001
    size = len(empty_nodes)
    head = bytes([0x3A, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    packed = b"\x0a" + head[1:] + b"\x01" * size  # dims, packed
    whole = onnx.ModelProto(graph=onnx.GraphProto(initializer=[TensorProto.FromString(packed)]))
    wire = whole.SerializeToString()
    for data in (head + empty_nodes, wire):
        with pytest.raises(BundleError, match="it has more than 50000 fields"):
            scan_onnx(write(tmp_path, data))


def locations(message: Any) -> Iterator[str]:
    """Every external location in a parsed model, by protobuf's own reflection."""
    if isinstance(message, TensorProto):
        yield from (entry.value for entry in message.external_data if entry.key == "location")
    for field, value in message.ListFields():
        if field.message_type:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from locations(each)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_give_facts_or_a_bundle_error(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    files = [HIDING_PLACES[place]().SerializeToString() for place in HIDING_PLACES]
    read = 0
    for turn in range(300):
        data = bytearray(files[turn % len(files)])
        if turn % 3 == 0:
            del data[int(rng.integers(len(data))) :]
        for at in rng.integers(0, max(1, len(data)), int(rng.integers(0, 4))):
            data[at : at + 1] = [rng.integers(256)]
        path = write(tmp_path, bytes(data))
        try:
            facts = scan_onnx(path)
        except BundleError:
            continue
        read += 1
        try:
            parsed = onnx.ModelProto.FromString(bytes(data))
        except Exception:  # protobuf is stricter here; an engine would refuse it too
            continue
        assert set(locations(parsed)) <= set(facts.external)
    assert read > 20
