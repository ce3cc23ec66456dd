from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import runtimes
from compress import candidates, folding, graph
from compress.export import count_macs, graph_spec, save_graph
from compress.quantizers import Job, quantizer
from runtimes import RecipeError
from sdk.onnx_scan import check_onnx


class Reshaping(nn.Module):
    """Attention-like reshapes and a lookup table: what exporters fill with shape arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(500, 200)
        self.mix = nn.Linear(200, 200)

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.mix(self.table(ids))
        heads = rows.view(*rows.shape[:2], 4, -1).transpose(1, 2)
        weights = torch.softmax(heads @ heads.transpose(2, 3), -1)
        return (weights @ heads).transpose(1, 2).reshape(rows.shape[0], rows.shape[1], -1).mean(1)


class Convolving(nn.Module):
    """A convolution with BatchNorm and a residual addition behind a uint8 input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU(), nn.Conv2d(16, 16, 1))
        self.head = nn.Linear(16, 8)

    def forward(self, image: Tensor) -> Tensor:
        pixels = (image.to(torch.float32) / 255).permute(0, 3, 1, 2)
        stem = self.stem(pixels)
        return self.head((stem + self.body(stem)).mean((2, 3)))


def exported(module: nn.Module, example: Tensor, name: str, path: Path) -> onnx.ModelProto:
    torch.manual_seed(0)
    torch.onnx.export(
        module.eval(),
        (example,),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=[name],
        output_names=["embedding"],
        dynamic_axes={name: {0: "batch"}, "embedding": {0: "batch"}},
    )
    model = onnx.load(str(path))
    model.ir_version = 8
    return model


def run(path: Path, feeds: dict[str, np.ndarray], on: str = "ort:cpu") -> np.ndarray:
    with runtimes.open_session(on, path, batch=None, precision="f32") as session:
        return session.run(feeds)["embedding"]


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


class SamePadding(nn.Module):
    """TensorFlow's uneven "same" padding, worked out from the input's shape, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 5, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.to(torch.float32).permute(0, 3, 1, 2)
        for layer in (self.first, self.second):
            more = (2 - pixels.shape[-1] % 2) % 2 + 1
            pixels = layer(nn.functional.pad(pixels, [0, more, 0, more]))
        return pixels.mean((2, 3))


class Patches(nn.Module):
    """A vision transformer's beginning and windows as other libraries write them: a class token per image, patches in
    a row, and attention in windows that are folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.mix, self.top = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, image: Tensor) -> Tensor:
        found = self.patches(image.to(torch.float32).permute(0, 3, 1, 2) / 255)
        count, channels, height, width = found.shape
        windows = found.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
        mixed = self.mix(windows.reshape(-1, 4, channels)).softmax(1)
        back = mixed.reshape(count, height // 2, width // 2, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
        tokens = (found + back.reshape(count, channels, height, width)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(count, -1, -1), tokens], 1)
        return self.top(tokens)[:, 0] + self.top(tokens).mean(1)


@pytest.fixture
def lookup(tmp_path: Path) -> tuple[onnx.ModelProto, Path]:
    module = Reshaping()
    path = tmp_path / "text.onnx"
    return exported(module, torch.ones(2, 6, dtype=torch.int64), "ids", path), path


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    path = tmp_path / "image.onnx"
    model = exported(Convolving(), torch.zeros(2, 16, 16, 3, dtype=torch.uint8), "image", path)
    graph.tidy(model)
    save_graph(model, path)
    return path


def test_tidy_leaves_no_shape_arithmetic_and_the_same_numbers(
    lookup: tuple[onnx.ModelProto, Path], tmp_path: Path
) -> None:
    model, path = lookup
    assert "Shape" in kinds(model)
    ids = np.random.default_rng(0).integers(0, 500, (5, 6))
    before = run(path, {"ids": ids})
    graph.tidy(model)
    assert not kinds(model) & {"Shape", "Constant", "Identity", "Concat", "ConstantOfShape"}
    save_graph(model, tmp_path / "tidy.onnx")
    for on in ("ort:cpu", "ov:cpu"):
        assert np.abs(run(tmp_path / "tidy.onnx", {"ids": ids}, on) - before).max() < 1e-5


def test_class_tokens_flat_patches_and_windows_keep_their_numbers(tmp_path: Path) -> None:
    """A size that windows were folded into is not the batch, nor are the two sizes in front of a flattened one."""
    path = tmp_path / "patches.onnx"
    model = exported(Patches(), torch.zeros(2, 16, 16, 3, dtype=torch.uint8), "image", path)
    assert {"ConstantOfShape", "Shape", "Expand"} <= kinds(model)
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    before = run(path, {"image": frames})
    graph.tidy(model)
    save_graph(model, tmp_path / "tidy.onnx")
    check_onnx(tmp_path / "tidy.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer}
    targets = [stored.get(node.input[1]) for node in model.graph.node if node.op_type == "Reshape"]
    assert [0, 8, -1] in targets
    assert all(target is None or target[0] != 2 for target in targets)
    for on in ("ort:cpu", "ov:cpu"):
        assert np.abs(run(tmp_path / "tidy.onnx", {"image": frames}, on) - before).max() < 1e-5


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["clip", "siglip", "vit"])
def test_image_towers_of_transformers_pass_the_scan(name: str, tmp_path: Path) -> None:
    import transformers as hf

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"image_size": 32, "patch_size": 8}
    made = {
        "clip": lambda: hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**shape, projection_dim=24)),
        "siglip": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**shape)),
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**shape)),
    }[name]()

    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = made

        def forward(self, image: Tensor) -> Tensor:
            out = self.tower(pixel_values=(image.to(torch.float32) / 255).permute(0, 3, 1, 2))
            return out.image_embeds if name == "clip" else out.pooler_output

    path = tmp_path / "tower.onnx"
    model = exported(Pixels(), torch.zeros(2, 32, 32, 3, dtype=torch.uint8), "image", path)
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    before = run(path, {"image": frames})
    graph.tidy(model)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = before.shape[1]
    save_graph(model, tmp_path / "tidy.onnx")
    check_onnx(tmp_path / "tidy.onnx")
    for on in ("ort:cpu", "ov:cpu"):
        assert np.abs(run(tmp_path / "tidy.onnx", {"image": frames}, on) - before).max() < 1e-4


def test_padding_goes_into_the_convolution(tmp_path: Path) -> None:
    path = tmp_path / "same.onnx"
    model = exported(SamePadding(), torch.zeros(2, 16, 16, 3, dtype=torch.uint8), "image", path)
    assert "Pad" in kinds(model)
    frames = np.random.default_rng(2).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    before = run(path, {"image": frames})
    graph.tidy(model)
    assert kinds(model) == {"Cast", "Transpose", "Conv", "ReduceMean"}
    save_graph(model, tmp_path / "tidy.onnx")
    for on in ("ort:cpu", "ov:cpu"):
        assert np.abs(run(tmp_path / "tidy.onnx", {"image": frames}, on) - before).max() < 1e-3


def test_batchnorm_is_folded_into_its_convolution(pixels: Path) -> None:
    assert "BatchNormalization" not in kinds(onnx.load(str(pixels)))


def test_embeddings_become_int8_rows_scaled_after_the_lookup(
    lookup: tuple[onnx.ModelProto, Path], tmp_path: Path
) -> None:
    model, path = lookup
    graph.tidy(model)
    ids = np.random.default_rng(1).integers(0, 500, (4, 6))
    before = run(path, {"ids": ids})
    graph.quantize_embeddings(model)
    save_graph(model, tmp_path / "int8.onnx")
    tables = [numpy_helper.to_array(t) for t in model.graph.initializer if list(t.dims) == [500, 200]]
    assert [table.dtype for table in tables] == [np.int8]
    assert np.abs(tables[0]).max() == 127
    after = run(tmp_path / "int8.onnx", {"ids": ids})
    assert 0 < np.abs(after - before).max() < 0.02
    assert not any(n.op_type == "DequantizeLinear" for n in model.graph.node)


def test_small_tables_stay_float() -> None:
    table = numpy_helper.from_array(np.ones((4, 4), np.float32), "table")
    made = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 4])],
        [table],
    )
    model = helper.make_model(made)
    graph.quantize_embeddings(model)
    assert [node.op_type for node in model.graph.node] == ["Gather"]


def feeds(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"image": rng.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)} for _ in range(count)]


@pytest.mark.parametrize("name", ["nncf_ptq", "ort_static"])
def test_quantizers_write_integer_graphs_both_engines_run(pixels: Path, tmp_path: Path, name: str) -> None:
    keep = graph.float_prefix(onnx.load(str(pixels)))
    assert {n.op_type for n in onnx.load(str(pixels)).graph.node if n.name in keep} == {"Cast", "Div", "Transpose"}
    out = tmp_path / f"{name}.onnx"
    quantizer(name).quantize(Job(pixels, out, feeds(40), keep, attention=False))
    model = onnx.load(str(out))
    assert graph.float_weight_quantizers(model) == ()
    stored = {t.name: t for t in model.graph.initializer}
    convolved = [n.input[1] for n in model.graph.node if n.op_type == "Conv"]
    made = {o: n for n in model.graph.node for o in n.output}
    assert all(made[w].op_type == "DequantizeLinear" for w in convolved)
    assert all(stored[made[w].input[0]].data_type == TensorProto.INT8 for w in convolved)
    activations = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert activations
    assert all(stored[n.input[2]].data_type == TensorProto.UINT8 for n in activations)
    for on in ("ov:cpu", "ort:cpu"):
        with runtimes.open_session(on, out) as session, runtimes.open_session(on, pixels, precision="f32") as float_:
            assert session.compute.startswith("int8")
            for feed in feeds(5, seed=9):
                got, want = session.run(feed)["embedding"][0], float_.run(feed)["embedding"][0]
                assert got @ want / np.linalg.norm(got) / np.linalg.norm(want) > 0.99


def test_unknown_quantizer() -> None:
    with pytest.raises(RecipeError, match=r"there is no quantizer named 'magic'.*nncf_ptq, ort_static, ort_symmetric"):
        quantizer("magic")


def test_unsigned_activations_are_the_same_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "scale": np.array(0.05, np.float32),
        "zero": np.array(-3, np.int8),
    }
    make = helper.make_node
    made = helper.make_graph(
        [
            make("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            make("DequantizeLinear", ["q", "scale", "zero"], ["embedding"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feed = {"x": rng.normal(0, 4, (6, 8)).astype(np.float32)}
    save_graph(model, tmp_path / "signed.onnx")
    graph.unsigned_activations(model)
    save_graph(model, tmp_path / "unsigned.onnx")
    zero = next(t for t in model.graph.initializer if t.name == "zero")
    assert (zero.data_type, int(numpy_helper.to_array(zero))) == (TensorProto.UINT8, 125)
    assert (run(tmp_path / "signed.onnx", feed) == run(tmp_path / "unsigned.onnx", feed)).all()


def test_a_part_of_a_shape_is_not_taken_for_the_whole() -> None:
    """Place 1 of the sizes from the second on is the third size: 5 here, and not 3."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"], start=1),
        helper.make_node("Gather", ["sizes", "place"], ["size"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 5])],
        [helper.make_tensor_value_info("size", TensorProto.INT64, [])],
        [numpy_helper.from_array(np.array(1, np.int64), "place")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    folding.fold_shapes(model)
    known = {tensor.name: int(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    assert known.get("size", 5) == 5


def behind_q_dq() -> onnx.ModelProto:
    """A float weight that a quantizer left behind."""
    weights = {"w": np.ones((4, 4), np.float32), "s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    made = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], "bad")],
        "g",
        [],
        [helper.make_tensor_value_info("q", TensorProto.INT8, [4, 4])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    return helper.make_model(made)


def test_a_float_weight_behind_q_dq_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert graph.float_weight_quantizers(behind_q_dq()) == ("bad",)
    onnx.save(behind_q_dq(), str(tmp_path / "source.onnx"))
    copying = SimpleNamespace(quantize=lambda job: shutil.copy(job.source, job.out))
    monkeypatch.setattr(candidates, "quantizer", lambda name: copying)
    with pytest.raises(RecipeError, match="copying left float weights behind 1 QuantizeLinear nodes of text"):
        candidates.choose("text", tmp_path / "source.onnx", ([], []), ("copying",), 0.01, tmp_path)


def test_macs_and_params_by_hand(pixels: Path) -> None:
    # 16x16 in, stride 2: 8x8 out. Stem 8*8*16*27, depthwise 8*8*16*9, pointwise 8*8*16*16, head 16*8.
    expected = 8 * 8 * 16 * 27 + 8 * 8 * 16 * 9 + 8 * 8 * 16 * 16 + 16 * 8
    assert count_macs(onnx.load(str(pixels))) == expected
    spec = graph_spec(pixels, "fp32", ("ov",))
    assert spec.macs == expected
    weights = 16 * 27 + 16 + 16 * 9 + 16 + 16 * 16 + 16 + 16 * 8 + 8
    assert weights <= spec.params < weights + 20
    assert spec.inputs["image"].shape == (None, 16, 16, 3)
    assert spec.opset == 17


def test_same_graph_same_bytes(lookup: tuple[onnx.ModelProto, Path], tmp_path: Path) -> None:
    model, _ = lookup
    save_graph(model, tmp_path / "a.onnx")
    save_graph(model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
