"""Bundles that are damaged, hostile or newer: each is refused with one line, before an engine or a parser sees it."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import sdk
from runtimes import BundleError, Unavailable
from sdk import open_bundle
from sdk.manifest import FusionSpec, PortSpec
from sdk.writer import npy_bytes
from tests.bundles import (
    ANSWERS,
    BANK,
    DIM,
    IMAGE_TOKENS,
    LENGTH,
    SIZE,
    WIDTH,
    build,
    colour_frame,
    damage,
    golden_with,
    without_text,
)

Change = Callable[[dict[str, Any]], object]


def fails(path: Path, message: str) -> None:
    """Opening raises BundleError with `message`, in one line."""
    with pytest.raises(BundleError, match=re.escape(message)) as caught:
        open_bundle(path)
    assert "\n" not in str(caught.value)


def copy(bundle: Path, out: Path) -> Path:
    return Path(shutil.copytree(bundle, out))


def test_opens(colours: Path) -> None:
    bundle = open_bundle(colours)
    assert bundle.manifest.name == "colours"
    assert bundle.graph("image", "fp32").inputs == {"image": PortSpec("uint8", (None, SIZE, SIZE, 3))}
    assert bundle.label_vectors.shape == (len(BANK), DIM)
    assert open_bundle(str(colours)).hash == bundle.hash
    assert bundle.manifest.fusion == FusionSpec(WIDTH, IMAGE_TOKENS, ANSWERS)
    assert bundle.weight(bundle.graph("image", "fp32")) == (colours / "image.fp32.onnx").stat().st_size


def test_a_relative_path_survives_chdir(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(colours.parent)
    bundle = open_bundle(colours.name)
    monkeypatch.chdir(tmp_path)
    assert bundle.golden.keys() >= {"texts"}
    assert bundle.path == colours


# What lies in the folder


@pytest.mark.parametrize("name", ["image.fp32.onnx", "text.int8.onnx", "tokenizer.json", "golden.npz", "labels.npy"])
def test_a_changed_byte_in_a_file(colours: Path, tmp_path: Path, name: str) -> None:
    path = copy(colours, tmp_path / "b") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    fails(path.parent, f"{path} is damaged: its hash is not the one bundle.json lists; copy the bundle again")


def test_a_changed_byte_in_the_description(colours: Path, tmp_path: Path) -> None:
    """bundle.json vouches for the files, and nothing vouches for it: a change makes another bundle; the hash tells."""
    path = copy(colours, tmp_path / "b")
    text = (path / "bundle.json").read_text(encoding="utf-8")
    (path / "bundle.json").write_text(text.replace('"colours"', '"colourz"'), encoding="utf-8")
    assert open_bundle(path).hash != open_bundle(colours).hash


def test_a_cut_file(colours: Path, tmp_path: Path) -> None:
    path = copy(colours, tmp_path / "b") / "golden.npz"
    path.write_bytes(path.read_bytes()[:-1])
    fails(path.parent, "golden.npz is damaged")


@pytest.mark.parametrize("name", ["image.int8.onnx", "tokenizer.json", "labels.npy"])
def test_a_missing_file(colours: Path, tmp_path: Path, name: str) -> None:
    path = copy(colours, tmp_path / "b")
    (path / name).unlink()
    fails(path, f"{path} lacks the file {name!r}; copy the bundle again")


def test_a_symlink(colours: Path, tmp_path: Path) -> None:
    path = copy(colours, tmp_path / "b")
    (path / "labels.npy").unlink()
    (path / "labels.npy").symlink_to(colours / "labels.npy")
    fails(path, "lacks the file 'labels.npy'")


def test_a_description_that_is_a_symlink(colours: Path, tmp_path: Path) -> None:
    path = copy(colours, tmp_path / "b") / "bundle.json"
    path.unlink()
    path.symlink_to(colours / "bundle.json")
    fails(path.parent, f"{path} is a symbolic link; copy the bundle itself, with the files it points at")


def test_a_folder_in_place_of_a_file(colours: Path, tmp_path: Path) -> None:
    path = copy(colours, tmp_path / "b")
    (path / "labels.npy").unlink()
    (path / "labels.npy").mkdir()
    fails(path, "lacks the file 'labels.npy'")


def test_a_file_that_is_used_and_not_listed(colours: Path, tmp_path: Path) -> None:
    """An unlisted file has no hash, so nothing may use it."""
    fails(
        damage(colours, tmp_path / "b", change=lambda t: t["files"].pop("labels.npy")),
        "uses the file 'labels.npy' but does not list it under files",
    )


@pytest.mark.parametrize("name", ["", "folder", "file", "\0", "x" * 300])
def test_no_bundle_at_all(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / name if name else tmp_path / "nowhere"
    message = "cannot be read: " if len(name) > 255 else "is not a bundle: a bundle is a folder that holds bundle.json"
    fails(path, f"{path} {message}")


# bundle.json


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON: "),
        (b"not json", "is not JSON: "),
        (b'{"format": 1', "is not JSON: "),
        (b"\xff\xfe{\x00}\x00", "is not JSON: "),
        (b"\xef\xbb\xbf{}", "is not JSON: "),
        (b"[" * 100_000, "is not JSON: "),
        (b'{"format": ' + b"9" * 5000 + b"}", "is not JSON: "),
        (b"[]", "does not say its format; it is no Edge Pupil bundle"),
        (b"{}", "does not say its format; it is no Edge Pupil bundle"),
        (b'{"format": "1"}', "does not say its format; it is no Edge Pupil bundle"),
        (b'{"format": 1, "name": "a", "name": "b"}', "is not JSON: the key 'name' comes twice"),
        (b'{"format": 1, "extra": {"a": NaN}}', "is not JSON: NaN is no number of JSON"),
        (b'{"format": 1}', "bundle.json lacks the key 'dim'"),
        (b'{"format": true}', "bundle.json lacks the key 'dim'"),
        (b'{"format": 1, "requires": "all"}', "requires 'all', which this reader cannot do"),
    ],
)
def test_a_description_that_is_none(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "bundle.json").write_bytes(data)
    fails(tmp_path, message)


def test_a_huge_description_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "bundle.json").open("wb") as file:
        file.truncate(1 << 30)
    fails(tmp_path, f"{tmp_path / 'bundle.json'} is larger than {64 << 20} bytes")


def _put(value: object, *keys: str | int) -> Change:
    """A change that sets the field at `keys`."""

    def change(table: Any) -> None:
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value

    return change


def _name_a_file(name: str) -> Change:
    return lambda table: table["files"].update({name: {"sha256": "0" * 64, "bytes": 0}})


_PORT = {"dtype": "float32", "shape": [None, DIM]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_put(2, "format"), "has format 2, this reader knows format 1; run: pip install -U edge-pupil"),
        (_put(0, "format"), "has format 0, this reader knows format 1"),
        (_put(["ocr-2"], "requires"), "requires 'ocr-2', which this reader cannot do; run: pip install -U edge-pupil"),
        (_put([["x"]], "requires"), "requires ['x'], which this reader cannot do"),
        (_put({"x": 1}, "requires"), "requires {'x': 1}, which this reader cannot do"),
        (_put(1, "colour"), "bundle.json has the unknown key 'colour'; it takes name, space, dim"),
        (_put(1, "image", "colour"), "bundle.json.image has the unknown key 'colour'"),
        (_put("16", "image", "size"), "bundle.json.image.size must be int, but is str"),
        (_put([1], "labels", "items"), "bundle.json.labels.items[0] must be dict, but is int"),
        (_put(None, "score"), "bundle.json.score must be dict, but is NoneType"),
        (_put("lanczos", "image", "resize"), "says image.resize = 'lanczos'; this reader knows: area"),
        (_put("left", "image", "crop"), "says image.crop = 'left'; this reader knows: none, center"),
        (_put("center-after", "image", "crop"), "says image.crop = 'center-after'; this reader knows: none, center"),
        (_put("max", "score", "kind"), "says score.kind = 'max'; this reader knows: softmax, sigmoid"),
        (_put(10**6, "image", "size"), "says image.size = 1000000; it must be 8 to 4096"),
        (_put(-16, "image", "size"), "says image.size = -16; it must be 8 to 4096"),
        (_put(4, "image", "size"), "says image.size = 4; it must be 8 to 4096"),
        (_put(0, "dim"), "says dim = 0; it must be 1 to 65536"),
        (_put(10**6, "dim"), "says dim = 1000000; it must be 1 to 65536"),
        (_put(0, "text", "length"), "says text.length = 0; it must be 1 to 4096"),
        (_put(10**6, "text", "length"), "says text.length = 1000000; it must be 1 to 4096"),
        (_put(["a wall"], "text", "templates"), "has the template 'a wall'; a template says with {} where"),
        (_put("red", "labels", "items", 1, "label"), "has a label twice in its bank"),
        (
            lambda t: t["graphs"].pop("image"),
            "has the towers fusion, text; it must have image, may have text and fusion, and no other",
        ),
        (lambda t: t["graphs"].clear(), "has the towers none; it must have image"),
        (_put({}, "graphs", "audio"), "has the towers fusion, image, text, audio; it must have image, may have text"),
        (_put(None, "text"), "has a text graph but text is null; wanted both or neither; make the bundle again"),
        (lambda t: t["graphs"].pop("text"), "has text but no text graph; wanted both or neither"),
        (_put({}, "graphs", "image"), "has no graph under graphs.image; leave the tower out, or make the bundle again"),
        (_put({}, "graphs", "text"), "has no graph under graphs.text; leave the tower out"),
        (_put({}, "graphs", "fusion"), "has no graph under graphs.fusion; leave the tower out"),
        (_put(None, "fusion"), "has a fusion graph but fusion is null; wanted both or neither; make the bundle again"),
        (lambda t: t["graphs"].pop("fusion"), "has fusion but no fusion graph; wanted both or neither"),
        (
            lambda t: (t["graphs"].pop("text"), t.update(text=None)),
            "has a fusion tower but no text tower to read questions with; make the bundle again",
        ),
        (_put(0, "fusion", "width"), "says fusion.width = 0; it must be 1 to 4096"),
        (_put(5000, "fusion", "width"), "says fusion.width = 5000; it must be 1 to 4096"),
        (_put(0, "fusion", "image_tokens"), "says fusion.image_tokens = 0; it must be 1 to 4096"),
        (_put(10**9, "fusion", "image_tokens"), "says fusion.image_tokens = 1000000000; it must be 1 to 4096"),
        (_put([], "fusion", "answers"), "has 0 fusion.answers; it must be 1 to 65536"),
        (_put(["x"] * 65_537, "fusion", "answers"), "has 65537 fusion.answers; it must be 1 to 65536"),
        (_put("\t", "fusion", "answers", 2), "has an answer that is blank, or one twice; make the bundle again"),
        (_put("no", "fusion", "answers", 0), "has an answer that is blank, or one twice; make the bundle again"),
        (_put("4", "fusion", "width"), "bundle.json.fusion.width must be int, but is str"),
        (_put(3, "fusion", "answers", 0), "bundle.json.fusion.answers[0] must be str, but is int"),
        (_put(1, "fusion", "depth"), "bundle.json.fusion has the unknown key 'depth'; it takes width, image_tokens, a"),
        (lambda t: t["fusion"].pop("answers"), "bundle.json.fusion lacks the key 'answers'"),
        (
            _put("golden.npz", "graphs", "image", "int8", "file"),
            "graphs.image.int8.file wanted a name that ends in .onnx, got 'golden.npz'; make the bundle again",
        ),
        (
            _put(" ", "labels", "items", 1, "label"),
            "has the label ' ' with 0 unknown tokens; wanted a text that is not",
        ),
        (_put(-1, "labels", "items", 0, "unknown"), "has the label 'red' with -1 unknown tokens; wanted"),
        (
            _put(" ", "labels", "items", 0, "group"),
            "has the label 'red' in the group ' '; wanted a text that is not blank, or '' for none; make",
        ),
        (_put(None, "labels", "items", 0, "group"), "bundle.json.labels.items[0].group must be str, but is NoneType"),
        (_put(5, "labels", "items", 0, "text"), "bundle.json.labels.items[0].text must be str, but is int"),
        (_put(1.01, "unknown_threshold"), "says unknown_threshold = 1.01; it must be -1 to 1"),
        (_put(-2, "unknown_threshold"), "says unknown_threshold = -2.0; it must be -1 to 1"),
        (_put("0.5", "unknown_threshold"), "bundle.json.unknown_threshold must be float, but is str"),
        (_put("../card.md", "card"), "uses the file '../card.md' but does not list it under files"),
        (_put("", "card"), "uses the file '' but does not list it under files"),
        (_put("other.npz", "golden"), "uses the file 'other.npz' but does not list it under files"),
        (_put("../x.onnx", "graphs", "image", "fp32", "file"), "uses the file '../x.onnx' but does not list it"),
        (_put(["w.bin"], "graphs", "image", "fp32", "external"), "uses the file 'w.bin' but does not list it"),
        (_put("bundle.json", "golden"), "uses the file 'bundle.json' but does not list it"),
        (
            lambda t: t["files"].update({f"f{i}": t["files"]["golden.npz"] for i in range(300)}),
            "lists 310 files; at most 256",
        ),
    ],
)
def test_a_description_that_is_wrong(colours: Path, tmp_path: Path, change: Change, message: str) -> None:
    fails(damage(colours, tmp_path / "b", change=change), message)


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "..",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:evil",
        "",
        ".hidden",
        "-rf",
        "bundle.json",
        "n" * 200,
        "nul\0",
        "é",
    ],
)
def test_a_file_name_that_could_climb_out(colours: Path, tmp_path: Path, name: str) -> None:
    fails(
        damage(colours, tmp_path / "b", change=_name_a_file(name)),
        f"lists the file name {name!r}; names are letters, digits, '.', '_' and '-' only",
    )


# Graphs


@pytest.mark.parametrize(
    ("field", "ports"),
    [
        ("inputs", {"image": {"dtype": "uint8", "shape": [None, SIZE, SIZE, 10**6]}}),
        ("inputs", {"image": {"dtype": "uint8", "shape": [1, SIZE, SIZE, 3]}}),
        ("inputs", {"image": {"dtype": "uint8", "shape": [None, 0, SIZE, 3]}}),
        ("inputs", {"image": {"dtype": "float32", "shape": [None, SIZE, SIZE, 3]}}),
        ("inputs", {"pixels": {"dtype": "uint8", "shape": [None, SIZE, SIZE, 3]}}),
        ("inputs", {}),
        ("outputs", {"embedding": {"dtype": "float32", "shape": [None, -DIM]}}),
        ("outputs", {"embedding": _PORT, "more": _PORT}),
    ],
)
def test_a_tower_that_takes_or_gives_something_else(
    colours: Path, tmp_path: Path, field: str, ports: dict[str, Any]
) -> None:
    fails(
        damage(colours, tmp_path / "b", change=_put(ports, "graphs", "image", "int8", field)),
        "graphs.image.int8 must take {'image': PortSpec(dtype='uint8', shape=(None, 16, 16, 3))} and give",
    )


def _say(table: Any, tower: str, side: str, port: str, spec: object) -> None:
    """What every variant of a tower says of one port; None takes it away."""
    for graph in table["graphs"][tower].values():
        graph[side] = {name: each for name, each in {**graph[side], port: spec}.items() if each is not None}


@pytest.mark.parametrize(
    ("tower", "side", "port", "shape"),
    [
        ("image", "outputs", "tokens", None),
        ("image", "outputs", "tokens", [None, IMAGE_TOKENS, WIDTH + 1]),
        ("image", "outputs", "embedding", None),
        ("text", "outputs", "tokens", None),
        ("text", "outputs", "tokens", [None, LENGTH + 1, WIDTH]),
        ("text", "outputs", "logits", [None, len(ANSWERS)]),
        ("fusion", "inputs", "image", [None, IMAGE_TOKENS + 1, WIDTH]),
        ("fusion", "inputs", "text", [None, None, WIDTH]),
        ("fusion", "inputs", "mask", None),
        ("fusion", "inputs", "ids", [None, LENGTH]),
        ("fusion", "outputs", "logits", [None, len(ANSWERS) - 1]),
        ("fusion", "outputs", "logits", None),
        ("fusion", "outputs", "embedding", [None, DIM]),
    ],
)
def test_a_tower_that_does_not_fit_its_fusion(
    colours: Path, tmp_path: Path, tower: str, side: str, port: str, shape: list[int | None] | None
) -> None:
    spec = None if shape is None else {"dtype": "float32", "shape": shape}
    path = damage(colours, tmp_path / "b", change=lambda t: _say(t, tower, side, port, spec))
    fails(path, f"graphs.{tower}.fp32 must take {{")


def test_a_fusion_that_says_other_numbers_than_its_graphs(colours: Path, tmp_path: Path) -> None:
    """bundle.json agrees with itself, only the ONNX files know better."""

    def change(table: Any) -> None:
        table["fusion"]["answers"].append("maybe")
        _say(table, "fusion", "outputs", "logits", {"dtype": "float32", "shape": [None, len(ANSWERS) + 1]})

    count = len(ANSWERS)
    fails(
        damage(colours, tmp_path / "b", change=change),
        f"graphs.fusion.fp32.outputs says {{'logits': ('float32', (None, {count + 1}))}}, but fusion.fp32.onnx has "
        f"{{'logits': ('float32', (None, {count}))}}",
    )


def test_without_fusion_a_tower_may_give_tokens_of_any_shape(colours: Path, plain: Path, tmp_path: Path) -> None:
    left = open_bundle(damage(colours, tmp_path / "left", change=without_text))
    assert left.manifest.fusion is None
    assert "tokens" in left.graph("image", "fp32").outputs
    assert "tokens" not in open_bundle(plain).graph("image", "fp32").outputs
    with sdk.load(left.path, budget_s=0) as student:
        assert student.classify(colour_frame("blue"))[0].label == "blue"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "port",
    [
        {"dtype": "float32", "shape": [None, 4]},
        {"dtype": "float32", "shape": [None, None, 4]},
        {"dtype": "float32", "shape": [1, 4, 4]},
        {"dtype": "float16", "shape": [None, 4, 4]},
    ],
)
def test_tokens_left_over_are_tokens(colours: Path, tmp_path: Path, port: dict[str, Any]) -> None:
    def change(table: Any) -> None:
        without_text(table)
        _say(table, "image", "outputs", "tokens", port)

    fails(damage(colours, tmp_path / "b", change=change), "graphs.image.fp32 must take {'image': PortSpec(")


def test_a_size_that_is_not_the_graphs(colours: Path, tmp_path: Path) -> None:
    """bundle.json agrees with itself, only the ONNX file knows better."""

    def change(table: dict[str, Any]) -> None:
        table["image"]["size"] = 32
        for graph in table["graphs"]["image"].values():
            graph["inputs"]["image"]["shape"] = [None, 32, 32, 3]

    fails(
        damage(colours, tmp_path / "b", change=change),
        "graphs.image.fp32.inputs says {'image': ('uint8', (None, 32, 32, 3))}, but image.fp32.onnx has {'image': "
        "('uint8', (None, 16, 16, 3))}",
    )


def test_a_graph_of_the_other_tower(colours: Path, tmp_path: Path) -> None:
    change = _put("text.fp32.onnx", "graphs", "image", "fp32", "file")
    fails(damage(colours, tmp_path / "b", change=change), "graphs.image.fp32.inputs says")


def test_an_opset_that_is_not_the_graphs(colours: Path, tmp_path: Path) -> None:
    change = _put(18, "graphs", "text", "fp32", "opset")
    fails(damage(colours, tmp_path / "b", change=change), "graphs.text.fp32.opset says 18, but text.fp32.onnx has 17")


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x00" * 100])
def test_a_graph_that_is_none(colours: Path, tmp_path: Path, data: bytes) -> None:
    fails(damage(colours, tmp_path / "b", {"image.fp32.onnx": data}), "'image.fp32.onnx' is not a readable ONNX file")


def image_graph_with_weights_at(location: str) -> bytes:
    model = build("image", "fp32")
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "kernel")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.append(onnx.StringStringEntryProto(key="location", value=location))
    kernel.ClearField("raw_data")
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret", "wanted external data inside the bundle, got '../secret'; do not use this bundle"),
        ("/etc/passwd", "wanted external data inside the bundle, got '/etc/passwd'"),
        ("a/../../secret", "wanted external data inside the bundle, got"),
        ("..\\secret", "wanted external data inside the bundle, got"),
        ("C:\\secret", "wanted external data inside the bundle, got"),
        ("weights.bin", "wanted only listed external data, got 'weights.bin'"),
    ],
)
def test_weights_outside_the_bundle(colours: Path, tmp_path: Path, location: str, message: str) -> None:
    """Engines follow such a path, so the file must not reach one."""
    (tmp_path / "secret").write_bytes(build("image", "fp32").graph.initializer[2].raw_data)
    path = damage(colours, tmp_path / "b", {"image.fp32.onnx": image_graph_with_weights_at(location)})
    fails(path, f"'image.fp32.onnx' {message}")
    with pytest.raises(BundleError):
        sdk.load(path, budget_s=0)


def test_listed_weights_beside_the_graph_are_fine(colours: Path, tmp_path: Path) -> None:
    weights = next(tensor for tensor in build("image", "fp32").graph.initializer if tensor.name == "kernel").raw_data
    path = damage(
        colours,
        tmp_path / "b",
        {"image.fp32.onnx": image_graph_with_weights_at("weights.bin"), "weights.bin": weights},
        _put(["weights.bin"], "graphs", "image", "fp32", "external"),
    )
    bundle = open_bundle(path)
    assert bundle.weight(bundle.graph("image", "fp32")) > len(weights)
    with sdk.load(path, precision="fp32") as student:
        assert student.classify(colour_frame("blue"))[0].label == "blue"


def test_an_operator_that_loads_files(colours: Path, tmp_path: Path) -> None:
    model = build("image", "fp32")
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node.append(helper.make_node("EPContext", [], ["blob"], domain="com.microsoft"))
    fails(
        damage(colours, tmp_path / "b", {"image.fp32.onnx": model.SerializeToString()}), "operators that load nothing"
    )


# Arrays


def _vectors(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


_UNIT = np.eye(len(BANK), DIM, dtype=np.float32)
# A header alone: it promises 4 TB.
_PROMISE = npy_bytes(np.zeros((4, DIM), np.float32)).replace(b"(4, 8), }" + b" " * 12, b"(1000000000000, 8), }")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "labels.npy of {path} is not a plain array"),
        (b"garbage", "labels.npy of {path} is not a plain array"),
        (npy_bytes(_UNIT)[:-1], "labels.npy of {path} is not a plain array"),
        (_PROMISE, "labels.npy of {path} is not a plain array"),
        (npy_bytes(_UNIT).replace(b"{'descr'", b"{[]: 1,  "), "labels.npy of {path} is not a plain array"),
        (npy_bytes(_UNIT).replace(b"{'descr'", b"('''descr"), "labels.npy of {path} is not a plain array"),
        (_vectors(np.array([{"a": 1}, None], object)), "is not a plain array: Object arrays cannot be loaded"),
        (npy_bytes(_UNIT.astype(np.float64)), "must be float32 (4, 8), is float64 (4, 8)"),
        (npy_bytes(_UNIT.astype(">f4")), "must be float32 (4, 8), is >f4 (4, 8)"),
        (npy_bytes(_UNIT[:3]), "must be float32 (4, 8), is float32 (3, 8)"),
        (npy_bytes(_UNIT[:, :4]), "must be float32 (4, 8), is float32 (4, 4)"),
        (npy_bytes(_UNIT * np.float32(np.nan)), "holds a vector that is not of unit length"),
        (npy_bytes(_UNIT * np.float32(2)), "holds a vector that is not of unit length"),
        (npy_bytes(_UNIT * 0), "holds a vector that is not of unit length"),
    ],
)
def test_label_vectors_that_are_none(colours: Path, tmp_path: Path, data: bytes, message: str) -> None:
    path = damage(colours, tmp_path / "b", {"labels.npy": data})
    with pytest.raises(BundleError, match=re.escape(message.format(path=path))):
        sdk.load(path, budget_s=0)


def _zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _broken_deflate(colours: Path) -> bytes:
    data = bytearray((colours / "golden.npz").read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first = archive.infolist()[0]
    start = first.header_offset + 30 + len(first.filename) + 20
    data[start : start + 40] = b"\xff" * 40
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: b"", "is not a plain .npz archive"),
        (lambda _: b"garbage", "is not a plain .npz archive"),
        (lambda _: npy_bytes(_UNIT), "is not a plain .npz archive"),
        (_broken_deflate, "is not a plain .npz archive"),
        (
            lambda _: _zipped({"a.npy": bytes(300 << 20)}),
            "it unpacks to 314572800 bytes, at most 268435456 are allowed",
        ),
        (lambda _: _zipped({"a.npy": _PROMISE}), "is not a plain .npz archive"),
        (lambda _: _zipped({"a.npy": _vectors(np.array([None], object))}), "Object arrays cannot be loaded"),
    ],
)
def test_golden_samples_that_are_none(
    colours: Path, tmp_path: Path, make: Callable[[Path], bytes], message: str
) -> None:
    path = damage(colours, tmp_path / "b", {"golden.npz": make(colours)})
    with pytest.raises(BundleError, match=re.escape(message)):
        sdk.load(path, budget_s=0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"out__image__fp32__embedding": None},
            "golden.npz lacks 'out/image/fp32/embedding', so image fp32 cannot prove itself",
        ),
        ({"feed__image__image": None}, "golden.npz lacks 'feed/image/image', so image fp32 cannot prove itself"),
        (
            {"feed__image__image": np.zeros((9, SIZE, SIZE, 3), np.float32)},
            "'feed/image/image' in golden.npz must be ui",
        ),
        (
            {"feed__image__image": np.zeros((8, SIZE, SIZE, 3), np.uint8)},
            "'out/image/fp32/embedding' in golden.npz must be float32 (8,",
        ),
        ({"feed__image__image": np.zeros((9, 8, SIZE, 3), np.uint8)}, "must be uint8 (9, 16, 16, 3) of one row at"),
        (
            {"out__image__fp32__embedding": np.zeros((9, 4), np.float32)},
            "'out/image/fp32/embedding' in golden.npz must be float32 (9, 8)",
        ),
        (
            {"out__image__fp32__embedding": np.zeros((9, DIM))},
            "must be float32 (9, 8) of one row at least, but is float64 (9, 8)",
        ),
        ({"out__image__fp32__tokens": None}, "golden.npz lacks 'out/image/fp32/tokens', so image fp32 cannot prove"),
        (
            {"out__image__fp32__tokens": np.zeros((9, IMAGE_TOKENS), np.float32)},
            "must be float32 (9, 4, 4) of one row at least, but is float32 (9, 4)",
        ),
        ({"out__image__fp32__embedding": np.array("x")}, "must be float32 (9, 8) of one row at least, but is <U1 ()"),
        (
            {
                "out__image__fp32__embedding": np.zeros((0, DIM), np.float32),
                "feed__image__image": np.zeros((0, SIZE, SIZE, 3), "u1"),
            },
            "of one row at least, but is",
        ),
    ],
)
def test_golden_samples_that_prove_nothing(
    colours: Path, tmp_path: Path, arrays: dict[str, np.ndarray | None], message: str
) -> None:
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, **arrays)})
    with pytest.raises(BundleError, match=re.escape(message)):
        sdk.load(path, precision="fp32")


def test_a_tolerance_that_is_not_stated(colours: Path, tmp_path: Path) -> None:
    path = damage(colours, tmp_path / "b", change=_put({}, "tolerance", "image"))
    with pytest.raises(BundleError, match="states no tolerance for image fp32 in "):
        sdk.load(path, precision="fp32")


# What is missing on purpose


def test_asking_for_what_a_bundle_does_not_have(colours: Path, tmp_path: Path) -> None:
    bundle = open_bundle(colours)
    with pytest.raises(Unavailable, match="has no 'fp64' image graph; it has: fp32, int8"):
        bundle.graph("image", "fp64")
    with pytest.raises(Unavailable, match="has no audio tower: ask its maker"):
        bundle.variants("audio")
    with pytest.raises(BundleError, match=r"does not list the file '\.\./x'"):
        bundle.file("../x")
    textless = open_bundle(damage(colours, tmp_path / "b", change=without_text))
    with pytest.raises(Unavailable, match="has no text tower: it was slimmed with --no-text; use the maker's bundle"):
        textless.variants("text")


def test_a_task_this_sdk_does_not_know_takes_nothing_else_with_it(colours: Path, tmp_path: Path) -> None:
    path = damage(colours, tmp_path / "b", change=_put(["classify", "dance"], "tasks"))
    with sdk.load(path, budget_s=0) as student:
        assert student.classify(colour_frame("red"))[0].label == "red"
        with pytest.raises(
            Unavailable, match="this SDK does not know the task 'dance'; run: pip install -U edge-pupil"
        ):
            student.task("dance")
        with pytest.raises(Unavailable, match="was not made for the task 'embed_images'; it does: classify, dance"):
            student.embed_images(colour_frame("red"))


def test_a_bundle_without_card_threshold_and_groups(colours: Path, tmp_path: Path) -> None:
    """What a maker need not say may be left out."""

    def change(table: dict[str, Any]) -> None:
        del table["card"], table["unknown_threshold"]
        table["tasks"].remove("search")
        for item in table["labels"]["items"]:
            del item["group"], item["text"]

    with sdk.load(damage(colours, tmp_path / "b", change=change), budget_s=0) as student:
        manifest = student.bundle.manifest
        assert (manifest.card, manifest.unknown_threshold) == (None, None)
        answer: Any = student.classify(colour_frame("purple"), groups=True)[0]
        assert (answer.label, answer.known) == ("red", True)
        with pytest.raises(Unavailable, match="was not made for the task 'search'; it does: classify, embed_images"):
            student.search("red", student.labels.current.vectors)


def test_extra_is_carried_and_ignored(colours: Path, tmp_path: Path) -> None:
    path = damage(colours, tmp_path / "b", change=_put({"new": [1, {"deep": None}]}, "extra"))
    assert open_bundle(path).manifest.extra == {"new": [1, {"deep": None}]}


def test_a_bundle_without_a_bank_has_no_label_vectors(colours: Path, tmp_path: Path) -> None:
    bundle = open_bundle(damage(colours, tmp_path / "b", change=_put(None, "labels")))
    assert bundle.label_vectors.shape == (0, DIM)


def test_the_fixture_is_what_these_tests_think(colours: Path) -> None:
    table = json.loads((colours / "bundle.json").read_text(encoding="utf-8"))
    assert table["text"]["length"] == LENGTH
    assert len(table["files"]) == 10
    assert len(_PROMISE) == len(npy_bytes(np.zeros((4, DIM), np.float32)))
    assert b"1000000000000" in _PROMISE
