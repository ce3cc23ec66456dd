"""Graphs and programs of a model: the same numbers as in torch, on every engine, and no node that only costs time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import runtimes
from compress.draft import ModelFiles
from compress.export import Tower, count_macs, export_model, graph_spec, towers
from compress.programs import program_path, write_programs
from runtimes import Port
from sdk.golden import output_error
from tests.small_models import ANSWERS, SHAPE, save_small, small_model

ROWS = 3
NAMES = ("image", "text", "fusion")
IMAGE_TOKENS = 4  # at 64 pixels, one for 32 x 32 of them


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    shape = dataclasses.replace(SHAPE, size=64)
    return save_small(small_model(shape), tmp_path_factory.mktemp("model") / "m", shape)


@pytest.fixture(scope="module")
def built(files: ModelFiles) -> dict[str, Tower]:
    return towers(files)


@pytest.fixture(scope="module")
def graphs(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return export_model(files, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def programs(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("programs") / "teacher.pt2"
    write_programs(files, image)
    return image


def feeds(name: str) -> dict[str, np.ndarray]:
    """Rows for a tower; texts of all lengths."""
    rng = np.random.default_rng(0)
    mask = (np.arange(12)[None] < np.array([[12], [3], [1]])).astype(np.int64)
    shapes = {"image": (ROWS, IMAGE_TOKENS, 16), "text": (ROWS, 12, 16)}
    drawn = {port: rng.normal(size=shape).astype(np.float32) for port, shape in shapes.items()}
    return {
        "image": {"image": rng.integers(0, 256, (ROWS, 64, 64, 3), np.uint8)},
        "text": {"ids": rng.integers(0, 3000, (ROWS, 12)) * mask, "mask": mask},
        "fusion": {**drawn, "mask": mask},
    }[name]


def in_torch(tower: Tower, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        made = tower.module(*(torch.from_numpy(array) for array in arrays.values()))
    outputs = made if isinstance(made, tuple) else (made,)
    return {port: output.numpy() for port, output in zip(tower.outputs, outputs, strict=True)}


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("on", ["ort:cpu", "ov:cpu"])
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_gives_what_torch_gives(
    graphs: dict[str, Path], built: dict[str, Tower], name: str, on: str, batch: int | None
) -> None:
    arrays = feeds(name)
    wanted = in_torch(built[name], arrays)
    with runtimes.open_session(on, graphs[name], batch=batch, precision="f32") as session:
        parts = [arrays] if batch is None else [{n: a[i : i + 1] for n, a in arrays.items()} for i in range(ROWS)]
        rows = [session.run(part) for part in parts]
    got = {port: np.concatenate([row[port] for row in rows]) for port in rows[0]}
    assert set(got) == set(wanted)
    for port, array in wanted.items():
        assert got[port].shape == array.shape
        assert np.allclose(got[port], array, rtol=1e-3, atol=1e-4)
        assert output_error(port, got[port], array) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_holds_nothing_that_shapes_and_names_alone_need(graphs: dict[str, Path], name: str) -> None:
    model = onnx.load(str(graphs[name]))
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"Shape", "Range", "Identity", "BatchNormalization", "ConstantOfShape", "Expand", "If", "Pad"}
    assert not [port for port in model.graph.input if port.type.tensor_type.shape.dim[0].dim_param != "batch"]
    assert model.opset_import[0].version == 17


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        (
            "image",
            {"image": ("uint8", (None, 64, 64, 3))},
            {"embedding": ("float32", (None, 16)), "tokens": ("float32", (None, IMAGE_TOKENS, 16))},
        ),
        (
            "text",
            {"ids": ("int64", (None, 12)), "mask": ("int64", (None, 12))},
            {"embedding": ("float32", (None, 16)), "tokens": ("float32", (None, 12, 16))},
        ),
        (
            "fusion",
            {
                "image": ("float32", (None, IMAGE_TOKENS, 16)),
                "text": ("float32", (None, 12, 16)),
                "mask": ("int64", (None, 12)),
            },
            {"logits": ("float32", (None, len(ANSWERS)))},
        ),
    ],
)
def test_ports_have_fixed_shapes_but_for_the_batch(
    graphs: dict[str, Path], name: str, inputs: dict[str, object], outputs: dict[str, object]
) -> None:
    spec = graph_spec(graphs[name], "fp32", ("ort",))
    assert {port: (found.dtype, found.shape) for port, found in spec.inputs.items()} == inputs
    assert {port: (found.dtype, found.shape) for port, found in spec.outputs.items()} == outputs
    assert spec.macs > 0
    assert spec.params > 0


def test_padding_has_tokens_of_zero(graphs: dict[str, Path]) -> None:
    arrays = feeds("text")
    with runtimes.open_session("ort:cpu", graphs["text"], batch=None) as session:
        words = session.run(arrays)["tokens"]
    assert (words[arrays["mask"] == 0] == 0).all()
    assert (words[arrays["mask"] == 1] != 0).any(1).all()


def test_the_same_model_gives_the_same_bytes(files: ModelFiles, graphs: dict[str, Path], tmp_path: Path) -> None:
    again = export_model(files, tmp_path)
    assert {name: path.read_bytes() for name, path in again.items()} == {n: p.read_bytes() for n, p in graphs.items()}


def test_products_of_matrices_are_counted(graphs: dict[str, Path]) -> None:
    """Of the fusion by hand: 12 words look at 4 image tokens, width 16, 2 heads, feed-forward twice as wide."""
    text, image, width = 12, IMAGE_TOKENS, 16
    block = 2 * text * width * width + 2 * image * width * width + 2 * text * image * width + 4 * text * width * width
    head = 2 * width * width + 2 * width * len(ANSWERS)
    assert count_macs(onnx.load(str(graphs["fusion"]))) == block + head


def test_a_model_without_questions_has_two_graphs_and_no_tokens(tmp_path: Path) -> None:
    shape = dataclasses.replace(SHAPE, answers=())
    files = save_small(small_model(shape), tmp_path / "m", shape)
    paths = export_model(files, tmp_path)
    assert set(paths) == {"image", "text"}
    for path in paths.values():
        assert [port.name for port in onnx.load(str(path)).graph.output] == ["embedding"]


def test_programs_lie_beside_each_other(programs: Path) -> None:
    assert [program_path(programs, name).name for name in NAMES] == [
        "teacher.pt2",
        "teacher.text.pt2",
        "teacher.fusion.pt2",
    ]
    assert {path.name for path in programs.parent.iterdir()} == {program_path(programs, name).name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_program_has_the_ports_and_the_numbers_of_its_graph(
    graphs: dict[str, Path], programs: Path, name: str
) -> None:
    arrays = feeds(name)

    def ports(table: Mapping[str, Port]) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        return {port: (found.dtype, tuple(found.shape)) for port, found in table.items()}

    with (
        runtimes.open_session("ort:cpu", graphs[name], batch=None, precision="f32") as graph,
        runtimes.open_session("pt:cpu", program_path(programs, name), batch=None) as program,
    ):
        assert ports(program.inputs) == ports(graph.inputs)
        assert ports(program.outputs) == ports(graph.outputs)
        wanted, got = graph.run(arrays), program.run(arrays)
        alone = program.run({port: array[:1] for port, array in arrays.items()})
    for port, array in wanted.items():
        assert np.allclose(got[port], array, rtol=1e-3, atol=1e-4)
        assert np.allclose(alone[port], array[:1], rtol=1e-3, atol=1e-4)
