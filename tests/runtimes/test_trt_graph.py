"""What TensorRT would refuse, told without it. That it does refuse, test_trt_rtx.py shows with TensorRT for RTX."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes import Unavailable
from runtimes.__main__ import PROBE
from runtimes._onnx_graph import NODES
from runtimes._trt_graph import read_graph
from tests.bundles import build
from tests.trt_graphs import ACCEPTED, REFUSED, STRICTER, graph, qdq


def write(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_takes_what_tensorrt_takes(tmp_path: Path, name: str) -> None:
    model, compute = ACCEPTED[name]()
    assert read_graph(write(tmp_path, model)).compute == compute


@pytest.mark.parametrize("name", sorted(REFUSED | STRICTER))
def test_refuses_what_tensorrt_refuses(tmp_path: Path, name: str) -> None:
    model, text = (REFUSED | STRICTER)[name]()
    with pytest.raises(Unavailable, match=f"TensorRT would refuse graph.onnx: .*{re.escape(text)}") as caught:
        read_graph(write(tmp_path, model))
    assert str(caught.value).endswith("Take a variant that is made for it: fp32, fp16-trt or int8-trt")


def test_takes_the_probe_and_float_towers(tmp_path: Path) -> None:
    assert read_graph(PROBE).compute == "f32"
    for tower in ("image", "text", "fusion"):
        assert read_graph(write(tmp_path, build(tower, "fp32"))).compute == "f32"


def test_refuses_the_int8_of_other_engines_and_counts(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"rounds to uint8, and it computes in int8 only; .*; and \d+ more\. Take"):
        read_graph(write(tmp_path, build("image", "int8")))
    with pytest.raises(Unavailable, match="the int8 constant 'table' is read by something else"):
        read_graph(write(tmp_path, build("text", "int8")))


def test_operators_of_subgraphs_are_looked_at(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Det", ["x"], ["inner"])],
        "inner",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
    model = graph([node], {"yes": np.array(True)})
    with pytest.raises(Unavailable, match="the operator Det is unknown to it"):
        read_graph(write(tmp_path, model))


def test_a_zero_point_may_be_a_constant_node_or_packed_otherwise(tmp_path: Path) -> None:
    model = qdq(np.int8(0))
    zero = next(t for t in model.graph.initializer if t.name == "zero")
    model.graph.initializer.remove(zero)
    unpacked = helper.make_tensor("zero", TensorProto.INT8, (), [0])
    assert not unpacked.raw_data
    model.graph.node.insert(0, helper.make_node("Constant", [], ["zero"], value=unpacked))
    assert read_graph(write(tmp_path, model)).compute == "int8+f32"
    model.graph.node[0].attribute[0].t.int32_data[0] = 3
    with pytest.raises(Unavailable, match="is asymmetric"):
        read_graph(write(tmp_path, model))


def test_names_the_files_that_hold_weights(tmp_path: Path) -> None:
    model = graph([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.ones((4, 8, 8), np.float32)})
    onnx.save(model, str(tmp_path / "graph.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert read_graph(tmp_path / "graph.onnx").external == ("w.bin",)


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x00" * 64, b"\x3a\x00\x3a\x00"[:2] + b"\x08"])
def test_a_file_that_is_no_graph(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(data)
    with pytest.raises(Unavailable, match=r"TensorRT cannot open graph\.onnx: it is not a readable ONNX file: \S"):
        read_graph(path)


def test_a_file_of_two_graphs(tmp_path: Path) -> None:
    """protobuf would merge them."""
    path = tmp_path / "graph.onnx"
    path.write_bytes(qdq(np.int8(0)).SerializeToString() * 2)
    with pytest.raises(Unavailable, match="it holds 2 graphs"):
        read_graph(path)


def test_the_table_of_nodes_is_the_real_one() -> None:
    for name in ("NodeProto", "AttributeProto", "TensorProto"):
        descriptor: Any = getattr(onnx, name).DESCRIPTOR
        for number, (field, _) in NODES[name].items():
            assert descriptor.fields_by_number[number].name == field


def test_a_scale_that_is_packed_as_floats(tmp_path: Path) -> None:
    model = qdq(np.int8(0))
    scale = next(t for t in model.graph.initializer if t.name == "scale")
    scale.CopyFrom(helper.make_tensor("scale", TensorProto.FLOAT, (), [-0.5]))
    with pytest.raises(Unavailable, match="has a scale that is not above 0"):
        read_graph(write(tmp_path, model))
    scale.CopyFrom(numpy_helper.from_array(np.array(np.inf, np.float32), "scale"))
    with pytest.raises(Unavailable, match="has a scale that is not above 0"):
        read_graph(write(tmp_path, model))
