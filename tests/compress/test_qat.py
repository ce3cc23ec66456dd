"""Training while rounding: an int8 graph that both engines read alike, the same one however often it was killed."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import runtimes
from compress import qat
from compress import train as training
from compress.augment import Augment
from compress.channels import prune_channels
from compress.data import open_dataset
from compress.draft import DatasetSpec, Draft, ImageSpec, ModelFiles
from compress.encode import encode_frames
from compress.export import export_model
from compress.fake_quantize import FakeQuantizer, export_quantized, fold_batch_norm, insert_quantizers, outputs
from compress.graph import float_weight_quantizers, fold_weights
from compress.models.dual_encoder import (
    DualEncoder,
    Shape,
    build,
    count,
    load_model,
    save_model,
    to_input,
    write_weights,
)
from compress.models.pruned import leave_out
from compress.prepared import prepared
from compress.store import Header, identity
from runtimes import RecipeError
from sdk.golden import unit_rows
from tests.small_models import LEFT_OUT
from tests.stores import write_store

ENGINES = ("ov:cpu", "ort:cpu")
HALF = (0.5, 0.5, 0.5)
DATA = DatasetSpec("easy_vqa", {"val_images": 2000})
# EfficientNet-Lite0 for its uneven paddings and residual blocks, two of which the pruned student still has.
SHAPE = Shape(
    image="efficientnet_lite0",
    image_options={},
    text="minilm",
    text_options={"vocab": 3000},
    size=32,
    dim=16,
    max_length=16,
)


@pytest.fixture(scope="module")
def tiny() -> pytest.MonkeyPatch:
    """A few steps an epoch instead of dozens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qat, "BATCH", 250)
        patch.setattr(qat, "CALIBRATION", 16)
        yield patch


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Draft:
    """A student that knows nothing yet of its teacher's space: ImageNet's weights, and a projection drawn anew."""
    out = tmp_path_factory.mktemp("qat")
    corpus = open_dataset(DATA.name, DATA.fields).load()
    frames = prepared(corpus.train.images, SHAPE.size, out, "read")
    files = {}
    for seed, who in enumerate(("teacher", "student")):
        torch.manual_seed(seed)
        model = build(SHAPE)
        files[who] = save_model(model, SHAPE, out / who)
    teacher, student = files["teacher"], pruned(model, files["student"], frames)
    graphs = {tower: {"fp32": path} for tower, path in export_model(student, out / "student").items()}
    student = dataclasses.replace(student, graphs=graphs)
    vectors = encode_frames(load_model(teacher), frames, (teacher.image.mean, teacher.image.std)).numpy()
    texts = tuple(dict.fromkeys(wordings[0] for wordings in corpus.captions))
    drawn = np.random.default_rng(0).normal(size=(len(texts), SHAPE.dim))
    header = Header(identity(teacher), corpus.fingerprint, 0, SHAPE.size, Augment(), 10.0, texts, 0)
    write_store(out / "store", header, {"train": vectors[None], "val": vectors[:1], "texts": unit_rows(drawn)})
    return Draft(out, out, 0, DATA, teacher=teacher, student=student, store=out / "store")


def pruned(model: DualEncoder, files: ModelFiles, frames: np.ndarray) -> ModelFiles:
    """`model`, saved over `files`, with fewer blocks and channels."""
    gone = model.image.tower.residual_blocks()[2:]  # type: ignore[operator]
    leave_out(model.image.tower, gone)
    pixels = to_input(frames[:32], files.image.mean, files.image.std)
    prune_channels(model.image, [pixels], count(model.image) // 2, "prune")
    leave_out(model.text.tower, LEFT_OUT)
    text = dataclasses.replace(files.text, without=LEFT_OUT)
    files = dataclasses.replace(files, image=dataclasses.replace(files.image, without=gone), text=text)
    write_weights(model, files)
    return files


Retrained = tuple[ModelFiles, Path]


@pytest.fixture(scope="module")
def retrained(draft: Draft, tiny: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    folder = tmp_path_factory.mktemp("whole")
    after = qat.retrain(draft, folder, epochs=2, lr=1e-3)
    pace = after.pace["gate: retrain"]
    assert (pace.batch, pace.device) == (qat.BATCH, "cpu")
    assert pace.seconds > 0
    return after.need("student", "test"), folder


def embed(path: Path, frames: np.ndarray, on: str) -> dict[str, np.ndarray]:
    with runtimes.open_session(on, path) as session:
        assert session.compute.startswith("int8")
        rows = [session.run({"image": frames[i : i + 1]}) for i in range(len(frames))]
    return {port: np.concatenate([row[port] for row in rows]) for port in rows[0]}


def closeness(one: np.ndarray, two: np.ndarray) -> float:
    """The mean cosine of rows, whatever their shape."""
    flat = [unit_rows(rows.reshape(len(rows), -1)) for rows in (one, two)]
    return float(np.einsum("nd,nd->n", *flat).mean())


def val_frames(draft: Draft, count: int = 40) -> np.ndarray:
    corpus = open_dataset(DATA.name, DATA.fields).load()
    return np.array(prepared(corpus.val.images[:count], SHAPE.size, draft.out, "read"))


def test_only_the_int8_image_graph_is_another(draft: Draft, retrained: Retrained) -> None:
    files, folder = retrained
    assert draft.student is not None
    graphs = {**draft.student.graphs, "image": {**draft.student.graphs["image"], "int8": folder / "image.int8.onnx"}}
    assert files == dataclasses.replace(draft.student, graphs=graphs)
    assert sys.modules["openvino_telemetry"] is None


def test_weights_are_stored_as_integers_and_pixels_stay_float(draft: Draft, retrained: Retrained) -> None:
    path = retrained[0].graphs["image"]["int8"]
    graph = onnx.load(str(path))
    assert graph.ir_version <= 9
    assert float_weight_quantizers(graph) == ()
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds[: kinds.index("QuantizeLinear")] == ["Cast", "Mul", "Add", "Transpose"]
    assert not {"Pad", "BatchNormalization", "Shape", "Identity"} & set(kinds)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    made = {name: node for node in graph.graph.node for name in node.output}
    layers = [node for node in graph.graph.node if node.op_type in {"Conv", "Gemm", "MatMul"}]
    for node in layers:
        data, weight = (made[name] for name in node.input[:2])
        if data.op_type == "Flatten":
            data = made[data.input[0]]
        assert data.op_type == weight.op_type == "DequantizeLinear"
        assert stored[data.input[2]].dtype == np.uint8
        assert stored[data.input[1]].ndim == 0
        assert stored[weight.input[0]].dtype == np.int8
        channels = stored[weight.input[0]].shape[weight.attribute[0].i]
        assert stored[weight.input[1]].shape == (channels,) != (1,)
    assert draft.student is not None
    assert path.stat().st_size < 0.5 * draft.student.graphs["image"]["fp32"].stat().st_size


def test_engines_agree_and_compute_in_int8(draft: Draft, retrained: Retrained) -> None:
    frames = val_frames(draft)
    one, two = (embed(retrained[0].graphs["image"]["int8"], frames, on)["embedding"] for on in ENGINES)
    assert closeness(one, two) > 0.999


def test_training_brings_the_graph_to_the_teacher(draft: Draft, retrained: Retrained) -> None:
    frames = val_frames(draft)
    vectors = {}
    for who in ("teacher", "student"):
        files = getattr(draft, who)
        vectors[who] = encode_frames(load_model(files), frames, (files.image.mean, files.image.std)).numpy()
    got = embed(retrained[0].graphs["image"]["int8"], frames, "ort:cpu")["embedding"]
    before, after = (closeness(found, vectors["teacher"]) for found in (vectors["student"], got))
    assert after > before + 0.3


@pytest.mark.usefixtures("tiny")
def test_a_killed_training_goes_on_to_the_same_bytes(
    draft: Draft, retrained: Retrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(training.EVERY_VARIABLE, "0")
    monkeypatch.setattr(training, "SHARE", float("inf"))
    for stop in (1, 9):  # in the first and in the second epoch
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(qat, "train", killed_at(stop))
            qat.retrain(draft, tmp_path, epochs=2, lr=1e-3)
        assert not (tmp_path / "image.int8.onnx").exists()
    files = qat.retrain(draft, tmp_path, epochs=2, lr=1e-3).need("student", "test")
    whole, resumed = (one.graphs["image"]["int8"].read_bytes() for one in (retrained[0], files))
    assert resumed == whole


def killed_at(stop: int) -> Callable[..., None]:
    """The training loop, interrupted by the user at a step."""

    def train(title: str, model: nn.Module, optimizer: object, steps: int, loss_of: object, file: Path) -> None:
        def stopping(step: int) -> Tensor:
            if step == stop:
                raise KeyboardInterrupt
            return loss_of(step)  # type: ignore[operator,no-any-return]

        training.train(title, model, optimizer, steps, stopping, file)  # type: ignore[arg-type]

    return train


@pytest.mark.usefixtures("tiny")
def test_a_finished_training_is_not_repeated(draft: Draft, retrained: Retrained, tmp_path: Path) -> None:
    shutil.copy(retrained[1] / "checkpoint-qat.pt", tmp_path)
    files = qat.retrain(draft, tmp_path, epochs=2, lr=1e-3).need("student", "test")
    assert files.graphs["image"]["int8"].read_bytes() == retrained[0].graphs["image"]["int8"].read_bytes()


@pytest.mark.usefixtures("tiny")
def test_a_rate_that_is_too_high_is_refused(draft: Draft, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gate: retrain: the loss of step \d+ is nan; lower the learning rate"):
        qat.retrain(draft, tmp_path, epochs=1, lr=1e37)


class Tokens(nn.Module):
    """A small tower that gives tokens too, with plain BatchNorm, and one that follows no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.loose = nn.BatchNorm2d(16)
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
        self.head, self.project = nn.Linear(16, 8), nn.Linear(16, 6)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.stem(pixels)
        features = stem + self.body(self.loose(stem))
        return self.head(features.mean((2, 3))), self.project(features.permute(0, 2, 3, 1).reshape(-1, 64, 16))


@pytest.fixture
def tower() -> Tokens:
    torch.manual_seed(0)
    tower = Tokens()
    tower(torch.randn(64, 3, 16, 16))  # statistics that are not those of a new BatchNorm
    return tower.eval()


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)


def test_batch_norm_is_folded_where_it_follows_a_convolution(tower: Tokens, frames: np.ndarray) -> None:
    pixels = to_input(frames, HALF, HALF)
    wanted = outputs(tower, pixels)
    fold_batch_norm(tower, pixels)
    assert [name for name, part in tower.named_modules() if isinstance(part, nn.BatchNorm2d)] == ["loose"]
    for one, two in zip(outputs(tower, pixels), wanted, strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_tokens_are_a_port_too_and_near_what_training_saw(tower: Tokens, frames: np.ndarray, tmp_path: Path) -> None:
    pixels = to_input(frames, HALF, HALF)
    model = insert_quantizers(tower, pixels)
    spec = ImageSpec("tokens", {}, tmp_path / "none", 0, 16, HALF, HALF)
    export_quantized(model, spec, tmp_path / "image.onnx")
    with torch.no_grad():
        wanted = dict(zip(("embedding", "tokens"), outputs(model, pixels), strict=True))
        exact = dict(zip(("embedding", "tokens"), outputs(tower, pixels), strict=True))
    for on in ENGINES:
        got = embed(tmp_path / "image.onnx", frames, on)
        assert got["embedding"].shape == (24, 8)
        assert got["tokens"].shape == (24, 64, 6)
        for port, array in got.items():
            assert closeness(array, wanted[port].numpy()) > 0.999
            assert closeness(array, exact[port].numpy()) > 0.99


def test_tokens_that_drift_cost(tower: Tokens, frames: np.ndarray) -> None:
    pixels = to_input(frames, HALF, HALF)
    model = insert_quantizers(tower, pixels)
    captions = torch.eye(8)[:3]
    wanted = nn.functional.normalize(outputs(tower, pixels)[0].detach(), dim=-1)
    loss = qat._loss(model, tower, captions, 1.0)
    near = loss((pixels, wanted)).item()
    with torch.no_grad():
        model.project.bias += outputs(tower, pixels)[1].std()  # type: ignore[operator,union-attr]
    assert near < 0.05
    assert loss((pixels, wanted)).item() == pytest.approx(near + 1, abs=0.1)


def test_ranges_follow_while_training_and_stay_after() -> None:
    ours = FakeQuantizer(torch.tensor(8.0), (0, 255), None)
    values = torch.linspace(0, 51, 256)
    assert (ours.eval()(values) - values).abs().max() > 1
    ours.train()
    for _ in range(200):
        ours(values)
    assert ours.scale.item() == pytest.approx(0.2, rel=0.01)
    assert (ours.eval()(values) - values).abs().max() < 0.11
    weight = torch.tensor([[1.0, -127.0], [0.0, 0.0]], requires_grad=True)
    per_channel = FakeQuantizer(torch.ones(2), (-128, 127), 0).train()
    per_channel(weight).sum().backward()
    assert per_channel.scale[0] == 1
    assert torch.equal(weight.grad, torch.ones(2, 2))  # type: ignore[arg-type]


def run_onnx(model: onnx.ModelProto) -> np.ndarray:
    model.ir_version = 8
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows: np.ndarray = session.run(None, {"x": np.eye(4, dtype=np.float32)})[0]
    return rows


@pytest.mark.parametrize("turned", [False, True])
def test_a_weight_behind_a_quantizer_is_stored_as_integers(turned: bool) -> None:
    weight = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    scale, zero = np.abs(weight).max(1) / np.float32(127), np.zeros(6, np.int8)
    stored = {"weight": weight, "scale": scale, "zero": zero}
    make = helper.make_node
    nodes = [
        make("QuantizeLinear", ["weight", "scale", "zero"], ["integers"], axis=0),
        make("DequantizeLinear", ["integers", "scale", "zero"], ["rounded"], axis=0),
        make("Transpose", ["rounded"], ["columns"], perm=[1, 0]),
        make("MatMul", ["x", "columns"], ["y"]) if turned else make("Gemm", ["x", "rounded"], ["y"], transB=1),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c]) for n, c in (("x", 4), ("y", 6))]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    before = run_onnx(model)
    assert float_weight_quantizers(model) != ()
    fold_weights(model)
    assert float_weight_quantizers(model) == ()
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear", "MatMul" if turned else "Gemm"]
    assert TensorProto.FLOAT not in {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    onnx.checker.check_model(model, full_check=True)
    assert np.allclose(before, run_onnx(model), atol=1e-6)


def test_a_zero_point_that_is_not_zero_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours have none: rounding would be another than that of the exported graph."""
    from nncf.torch.quantization.layers import SymmetricQuantizer

    real = SymmetricQuantizer.get_parameters_for_torch_fq

    def shifted(self: Any) -> Any:
        low, high, scale, zero = real(self)
        return low, high, scale, torch.ones_like(zero)

    monkeypatch.setattr(SymmetricQuantizer, "get_parameters_for_torch_fq", shifted)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, pixels: Tensor) -> Tensor:
            found: Tensor = self.two(self.one(pixels).relu())
            return found

    side = Two().eval()
    with pytest.raises(ValueError, match=r"NNCF shifted the zero point of .*, which its preset PERFORMANCE does not"):
        insert_quantizers(side, torch.randn(8, 3, 16, 16))
