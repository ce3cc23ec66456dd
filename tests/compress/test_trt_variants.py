"""Variants for TensorRT, made of real towers, and held against float on the engines that are here."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, numpy_helper

from compress.assemble import order_families
from compress.candidates import float_nodes
from compress.export import export_model
from compress.quantizers import Job
from compress.steps.quantize import Quantize
from compress.trt_variants import make_variant
from runtimes import Unavailable
from runtimes._trt_graph import read_graph
from tests.small_models import save_small, small_model
from tests.trt_graphs import graph, node, tower_feeds


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("towers")
    return export_model(save_small(small_model(), folder / "m"), folder)


def test_both_variants_of_every_tower(towers: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    for tower, source in towers.items():
        rows = tower_feeds(source, 20)
        made, measured = Quantize(variants=("fp16-trt", "int8-trt"))._more(tower, source, (rows, rows[:4]), tmp_path)
        assert {name: path.name for name, path in made.items()} == {
            "fp16-trt": f"{tower}.fp16-trt.onnx",
            "int8-trt": f"{tower}.int8-trt.onnx",
        }
        assert read_graph(made["fp16-trt"]).compute == "f16"
        assert read_graph(made["int8-trt"]).compute == "int8+f16"
        assert float(measured[f"{tower}.fp16-trt.distance"]) < 1e-3
        assert float(measured[f"{tower}.int8-trt.distance"]) < 0.05
        model = onnx.load(str(made["int8-trt"]))
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        assert TensorProto.FLOAT not in {tensor.data_type for tensor in stored.values()}
        zeros = [stored[n.input[2]] for n in model.graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
        assert zeros
        assert {zero.data_type for zero in zeros} == {TensorProto.INT8}
        assert not any(numpy_helper.to_array(zero).any() for zero in zeros)
    assert sorted(path.suffix for path in (tmp_path / "student").iterdir()) == [".onnx"] * 2 * len(towers)
    assert not list((tmp_path / "student").glob("*.rounded.onnx"))


def test_nothing_is_made_that_was_not_asked_for(towers: dict[str, Path], tmp_path: Path) -> None:
    assert Quantize()._more("image", towers["image"], ([], []), tmp_path) == ({}, {})
    assert not list(tmp_path.iterdir())


def test_a_graph_that_tensorrt_cannot_run_is_refused_when_it_is_made(tmp_path: Path) -> None:
    source = tmp_path / "image.fp32.onnx"
    inverse = graph([node("Det", ["x"], ["y"])], {}, ("x", TensorProto.FLOAT, ["batch", 4, 4]))
    source.write_bytes(inverse.SerializeToString())
    keep, attention = float_nodes("image", source)
    with pytest.raises(Unavailable, match="the operator Det is unknown to it"):
        make_variant("fp16-trt", Job(source, tmp_path / "image.fp16-trt.onnx", [], keep, attention))


def test_what_could_not_be_timed_keeps_its_order() -> None:
    assert order_families(("trt",), {"ov": 1.0, "ort": 2.0}) == ("trt",)
    assert order_families(("ov", "ort", "trt"), {"ov": 2.0, "ort": 1.0}) == ("ort", "ov", "trt")
