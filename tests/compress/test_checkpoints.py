"""Checkpoints of every family, saved by the libraries they come from, against those libraries."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tokenizers
import torch

from compress.adopt import adopt, check_deployable
from compress.checkpoints import Checkpoint, family_of, load
from compress.draft import ModelFiles
from compress.export import export_model
from compress.hub import content, locate
from compress.models.dual_encoder import load_model
from compress.parity import Towers, check_finite, prove
from compress.probes import PROBES
from runtimes import RecipeError
from sdk.frames import read_frame
from sdk.manifest import ScoreSpec
from sdk.tasks.classify import scored
from sdk.text import Tokenizer
from tests.checkpoints import CARD, save_clip, save_open_clip, save_siglip
from tests.photos import picture, save

SAVE: dict[str, Callable[..., Path]] = {
    "clip": save_clip,
    "siglip": save_siglip,
    "siglip2": partial(save_siglip, two=True),
    "open_clip": save_open_clip,
}


@pytest.fixture(scope="module", params=sorted(SAVE))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SAVE[request.param](tmp_path_factory.mktemp("checkpoint") / str(request.param))


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    loaded: Checkpoint = family_of(folder).load(folder)
    return loaded


@pytest.fixture(scope="module")
def files(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return adopt(checkpoint, tmp_path_factory.mktemp("files"), {"it": "mit"}, "")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """A hundred, wide and tall."""
    root = tmp_path_factory.mktemp("photos")
    cut = (lambda frame, n: frame[: 50 + n % 39], lambda frame, n: frame[:, : 50 + n % 37])
    return [save(root / f"{n}.jpg", np.ascontiguousarray(cut[n % 2](picture(n, 90), n))) for n in range(100)]


def test_ids_are_the_checkpoints_own_for_200_strings(checkpoint: Checkpoint, files: ModelFiles) -> None:
    assert len(set(PROBES)) >= 200
    text = files.text.tokenizer.read_text(encoding="utf-8")
    tokens = Tokenizer(text, files.text.max_length, "tokenizer.json")(PROBES)
    np.testing.assert_array_equal(tokens.ids, checkpoint.own.ids(PROBES))
    known = [count for text, count in zip(PROBES, tokens.unknown, strict=True) if text.isascii()]
    assert "sigmoid" in checkpoint.score.kind or not any(known), "an end is no unknown token"


def test_vectors_and_scores_are_the_checkpoints_own(
    checkpoint: Checkpoint, files: ModelFiles, photos: Sequence[Path]
) -> None:
    found = prove(Towers(files), checkpoint, files.score, photos, PROBES[60:80])
    assert (found["tokens"], found["texts"], found["images"]) == (1, len(PROBES), 100)
    assert 0.9995 <= found["cosine_min"] <= found["cosine_mean"] <= 1.0001
    assert 0.9995 <= found["text_cosine_min"] <= found["text_cosine_mean"] <= 1.0001
    assert found["score_error"] <= 1e-3
    assert (files.score, files.logit_scale, files.logit_bias) == (
        checkpoint.score.kind,
        checkpoint.score.logit_scale,
        checkpoint.score.logit_bias,
    )


def test_the_graphs_hold_no_shape_arithmetic(files: ModelFiles, tmp_path: Path) -> None:
    for path in export_model(files, tmp_path).values():
        model = onnx.load(str(path))
        assert {node.op_type for node in model.graph.node}.isdisjoint({"Shape", "Range", "Expand", "ConstantOfShape"})
        assert all(port.type.tensor_type.shape.dim[0].dim_param == "batch" for port in model.graph.input)
        shapes = [port.type.tensor_type.shape.dim for port in (*model.graph.input, *model.graph.output)]
        assert all(dim.dim_value > 0 for shape in shapes for dim in list(shape)[1:])
        assert {name for node in model.graph.node for name in node.input} >= {port.name for port in model.graph.input}


def test_columns_of_padding_may_be_left_out(files: ModelFiles) -> None:
    from compress.encode import encode_texts
    from compress.questions import tokens

    tokenizer = tokenizers.Tokenizer.from_file(str(files.text.tokenizer))
    model, texts = load_model(files), ["a cat", "the price of tea"]
    assert tokens(tokenizer, texts)[0].shape[1] < files.text.max_length
    coded = tokenizer.encode_batch(texts)
    ids, mask = (torch.tensor([getattr(code, name) for code in coded]) for name in ("ids", "attention_mask"))
    with torch.no_grad():
        whole = torch.nn.functional.normalize(model.encode_text(ids, mask), dim=-1)
    torch.testing.assert_close(encode_texts(model, tokenizer, texts), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_transformers_probabilities(name: str, tmp_path: Path, photos: Sequence[Path]) -> None:
    """The whole way from photos and words, against the library's own `forward`, its processor resizing by Pillow."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = SAVE[name](tmp_path / name)
    checkpoint = family_of(folder).load(folder)
    files = adopt(checkpoint, tmp_path / "files", {}, "")
    texts, frames = ["a photo of a cat", "a red car", "seven wooden chairs"], [read_frame(path) for path in photos[:20]]
    model, length = AutoModel.from_pretrained(folder).eval(), checkpoint.length
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=frames, return_tensors="pt")
    coded = AutoTokenizer.from_pretrained(folder)(
        texts, return_tensors="pt", padding="max_length", max_length=length, truncation=True
    )
    with torch.no_grad():
        logits = model(**pixels, **coded).logits_per_image
    wanted = logits.double().sigmoid() if name == "siglip" else logits.double().softmax(1)
    ours = Towers(files)
    seen, read = ours.images(frames), ours.texts(texts)
    score = ScoreSpec(files.score, files.logit_scale, files.logit_bias)
    np.testing.assert_allclose(scored(seen @ read.T, score), wanted.numpy(), atol=1e-3)
    own = checkpoint.own
    np.testing.assert_allclose(own.logits(own.images(frames), own.texts(texts)), logits.numpy(), rtol=1e-4, atol=1e-3)


def test_a_pickle_of_tensors_will_do_and_no_other(tmp_path: Path) -> None:
    saved = save_open_clip(tmp_path / "pickle", safe=False)
    assert family_of(saved).load(saved).dim == 48
    folder = save_clip(tmp_path / "clip")
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert family_of(folder).load(folder).dim == 48
    for broken, name in ((folder, "pytorch_model.bin"), (saved, "open_clip_pytorch_model.bin")):
        torch.save({**tensors, "run": Opens(str(tmp_path / "made"))}, broken / name)
        with pytest.raises(RecipeError, match=r"cannot be loaded .*safetensors,? or a pickle"):
            family_of(broken).load(broken)
    assert not (tmp_path / "made").exists()


class Opens:
    """What a hostile pickle holds: a call when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return open, (self.path, "w")


def _edit(path: Path, **changes: Any) -> None:
    table = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**table, **changes}), encoding="utf-8")


def _images(folder: Path, **changes: Any) -> None:
    path = folder / "processor_config.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    _edit(path, image_processor={**table["image_processor"], **changes})


def _drop(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def _vision_only(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if not k.startswith("text_model")}, folder / "model.safetensors")


def _normalize(folder: Path, table: str) -> None:
    _edit(folder / "tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": table})


def _narrow(folder: Path) -> None:
    table = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _edit(folder / "config.json", projection_dim=24, vision_config={**table["vision_config"], "hidden_size": 32})


CLIP_ERRORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no tokenizer": (lambda f: _drop(f, "tokenizer.json"), r"has no tokenizer \(tokenizer.json or vocab.json"),
    "no preprocessing": (lambda f: _drop(f, "processor_config.json"), r"has no preprocessing \(preprocessor_config"),
    "other kind": (
        lambda f: _edit(f / "config.json", model_type="bert"),
        "holds a checkpoint of the kind 'bert'; known: ",
    ),
    "no config": (
        lambda f: _drop(f, "config.json"),
        "wanted a dual encoder of images and texts, .* no config.json that",
    ),
    "no JSON": (lambda f: (f / "config.json").write_text("{", "utf-8") and None, r"config.json cannot be read \("),
    "a list": (lambda f: (f / "config.json").write_text("[]", "utf-8") and None, "holds no JSON object"),
    "no weights": (lambda f: _drop(f, "model.safetensors"), "has no weights; wanted model.*safetensors or pytorch_m"),
    "one tower": (_vision_only, "lacks .* weights of a CLIPModel, such as text_model.* wanted both towers"),
    "no resize": (lambda f: _images(f, do_resize=False), "wanted its model's 32 pixels, by the shortest edge"),
    "larger": (lambda f: _images(f, size={"shortest_edge": 64}), "resizes frames to .*64.* and crops .*32"),
    "nearest": (lambda f: _images(f, resample=0), r"with Pillow's filter 0; wanted one of 3 \(pil-bicubic\), 2 \("),
    "no scaling": (lambda f: _images(f, do_rescale=False), "does not scale pixels by 1/255"),
    "left": (
        lambda f: _edit(f / "tokenizer_config.json", padding_side="left"),
        "pads on the left; wanted one that pads",
    ),
    "hostile": (
        lambda f: _normalize(f, "/////wAA"),
        r"tokenizer.json is not opened: wanted a charsmap .* take",
    ),
    "no tokens": (
        lambda f: (f / "tokenizer.json").write_text("{}", "utf-8") and None,
        "tokenizer.json is not opened: wanted a model of the types",
    ),
    "processors": (
        lambda f: _images(f, image_processor_type="X"),
        "processors of .* cannot be loaded .* save them",
    ),
    "no padding": (
        lambda f: _edit(f / "tokenizer_config.json", pad_token=None),
        "names no token to pad with; add the one that the model was trained with",
    ),
    "no filter": (lambda f: _images(f, resample=None), "with Pillow's filter None; wanted one of"),
    "no mean": (lambda f: _images(f, image_mean=None), r"is no CLIP of transformers .* that can be read \(TypeError"),
    "other shapes": (
        _narrow,
        r"has \d+ weights of other shapes than its config.json says, .*: \(.*, and not \(",
    ),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("whole") / "clip")


@pytest.mark.parametrize("name", sorted(CLIP_ERRORS))
def test_what_cannot_be_used_is_refused(name: str, clip: Path, tmp_path: Path) -> None:
    damage, message = CLIP_ERRORS[name]
    folder = tmp_path / "clip"
    shutil.copytree(clip, folder)
    damage(folder)
    with pytest.raises(RecipeError, match=message):
        load(*locate(str(folder)))


def test_no_kernel_of_the_hub_is_asked_for(clip: Path, tmp_path: Path) -> None:
    """A configuration may name one, and that is code."""
    folder = tmp_path / "clip"
    shutil.copytree(clip, folder)
    _edit(folder / "config.json", attn_implementation="evil/kernel", _attn_implementation="evil/kernel")
    checkpoint = load(*locate(str(folder)))
    assert checkpoint.own._model.config._attn_implementation == "sdpa"  # type: ignore[attr-defined]


def test_siglip_without_its_tokenizer_or_preprocessing(tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "siglip")
    _drop(folder, "processor_config.json")
    with pytest.raises(RecipeError, match=r"has no preprocessing \(preprocessor_config"):
        family_of(folder).load(folder)
    _drop(folder, *(path.name for path in folder.glob("*") if path.name in {"tokenizer.json", "spiece.model"}))
    with pytest.raises(
        RecipeError, match=r"has no tokenizer \(tokenizer.json or vocab.json or spiece.model\); save it"
    ):
        family_of(folder).load(folder)


def test_siglip_that_does_not_meet(tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "siglip", projection=32)
    with pytest.raises(RecipeError, match="gives images vectors of 64 values and texts of 32; wanted an image tower"):
        family_of(folder).load(folder)


def test_a_tokenizer_of_another_library(tmp_path: Path) -> None:
    from compress.hf_checkpoint import Processors

    folder = save_clip(tmp_path / "clip")
    processors = Processors(folder)
    processors.tokenizer = object()
    with pytest.raises(RecipeError, match=r"\(object\) has no tokenizer.json; convert it to one"):
        processors.tokenizer_json(folder, 77)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_cfg": {"attentional_pool": True}}, "asks for attentional_pool; of open_clip, vision transformers"),
        ({"vision_cfg": {"timm_proj": "mlp"}}, "asks for timm_proj or timm_pool"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:a/b"}}, "asks for timm_model_name"),
        ({"vision_cfg": {"colour": 1}}, r"cannot be loaded \(TypeError: .*'colour'"),
        ({"multimodal_cfg": {"x": 1}, "text_cfg": {"hf_model_name": "roberta"}}, "for hf_model_name, multimodal_cfg"),
        ({"vision_cfg": {"layers": [1, 1, 1, 1]}}, "asks for layers"),
        (
            {"vision_cfg": {"pool_type": "avg"}, "text_cfg": {"pool_type": "first"}},
            "for vision pool_type, text pool_type",
        ),
        ({"text_cfg": None}, "names no vision_cfg and text_cfg; wanted a dual encoder"),
        ({"vision_cfg": 7}, "names no vision_cfg and text_cfg; wanted a dual encoder"),
        ({"text_cfg": {"proj_type": "none"}}, "asks for text proj_type"),
        (
            {"vision_cfg": {"width": 48}},
            r"cannot be loaded \(RuntimeError: .* wanted the weights that open_clip",
        ),
        ({"vision_cfg": {"head_width": None}}, r"cannot be loaded \(TypeError"),
        ({"preprocess": None}, "names no preprocess_cfg; add the one that it was trained with"),
        ({"preprocess": {"resize_mode": "longest"}}, "resizes by 'longest', 'bicubic'; wanted shortest or squash"),
    ],
)
def test_what_open_clip_has_and_we_have_not(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path / "open_clip")
    path = folder / "open_clip_config.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    for name, more in changes.items():
        if name == "preprocess" and more is None:
            del table["preprocess_cfg"]
        elif name == "preprocess":
            table["preprocess_cfg"].update(more)
        elif name not in table["model_cfg"]:
            table["model_cfg"][name] = more
        elif more is None:
            del table["model_cfg"][name]
        elif not isinstance(more, dict):
            table["model_cfg"][name] = more
        else:
            table["model_cfg"][name].update(more)
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        load(folder, family_of(folder))


@pytest.mark.parametrize(("projection", "pool"), [("linear", "avg"), ("none", "avg"), (None, "avg"), ("linear", None)])
def test_open_clip_with_a_network_of_timm(
    projection: str | None, pool: str | None, photos: Sequence[Path], tmp_path: Path
) -> None:
    """As MobileCLIP is built, whose texts see padding."""
    vision = {"timm_model_name": "test_resnet", "timm_proj": projection, "timm_pool": pool}
    folder = save_open_clip(
        tmp_path / "timm", CARD, vision, {"no_causal_mask": True}, dim=96 if projection == "none" else 48
    )
    checkpoint = family_of(folder).load(folder)
    files = adopt(checkpoint, tmp_path / "files", {}, "")
    found = prove(Towers(files), checkpoint, files.score, photos[:20], ["a cat"])
    assert found["tokens"] == 1
    model = load_model(files)
    assert (files.image.params, files.text.params) == (model.image.count(), model.text.count())
    stored = sum(tensor.numel() for tensor in model.image.state_dict().values())
    assert files.image.params < stored, "what BatchNorm counts is no parameter"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": "pil-lanczos"}, r"wants frames resized by 'pil-lanczos', and the SDK knows area"),
        ({"size": (32, 32)}, r"wants frames of \(32, 32\) pixels; wanted squares, one whole number"),
        ({"mean": (0.5,)}, r"mean of pixels is \[0.5\]; wanted a number for each of 3 colours$"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean of pixels is .*nan.* wanted a number for each"),
        ({"std": (0.5, 0.0, 0.5)}, "std of pixels is .* wanted a number for each of 3 colours, above 0"),
        ({"size": 48}, "takes no frames of 48 pixels"),
    ],
)
def test_pixels_that_no_device_could_make_are_refused(
    changes: dict[str, Any], message: str, checkpoint: Checkpoint
) -> None:
    pixels = dataclasses.replace(checkpoint.pixels, **changes)
    with pytest.raises(RecipeError, match=message):
        check_deployable(dataclasses.replace(checkpoint, pixels=pixels))


def test_what_no_device_could_open_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(
        RecipeError,
        match=r"no device would open its tokenizer: .*does not pad and cut to 5 tokens; save another beside",
    ):
        check_deployable(dataclasses.replace(checkpoint, length=5))


@pytest.mark.parametrize("which", ["image", "text"])
def test_towers_are_built_before_the_run(which: str, checkpoint: Checkpoint) -> None:
    part = getattr(checkpoint, which)
    strange = dataclasses.replace(part, options={**part.options, "activation": "silu"})
    with pytest.raises(RecipeError, match=rf"the checkpoint's {which} tower is none of ours: .* no activation 'silu'"):
        check_deployable(dataclasses.replace(checkpoint, **{which: strange}))
    short = dataclasses.replace(part, options={**part.options, "layers": 1})
    with pytest.raises(RecipeError, match=rf"weights of the checkpoint's {which} tower are not what .* copy both from"):
        check_deployable(dataclasses.replace(checkpoint, **{which: short}))


class Other:
    """The checkpoint's own, with something wrong."""

    def __init__(self, own: Any, what: str) -> None:
        self._own, self._what = own, what

    def ids(self, texts: Sequence[str]) -> Any:
        return self._own.ids(texts)[:, self._what == "length" :] + (self._what == "ids")

    def images(self, frames: Any) -> Any:
        seen = self._own.images(frames)
        if self._what == "nan":
            seen[1, 0] = np.nan
        return -seen if self._what == "images" else seen

    def texts(self, texts: Any) -> Any:
        return self._own.texts(texts)[:, self._what == "width" :]

    def logits(self, images: Any, texts: Any) -> Any:
        return self._own.logits(images, texts) + np.arange(len(texts)) * (self._what == "score")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("ids", r"get other tokens from the tokenizer.json than from the checkpoint's own tokenizer, such as 'a photo"),
        ("images", r"the images have a least cosine of -1.0000\d? to the checkpoint's own vectors, wanted 0.9995"),
        ("score", "probabilities differ by .* from the checkpoint's own, wanted at most 0.001"),
        ("length", r"a text has \d+ tokens, and \d+ by the checkpoint's own library; this was made of another"),
        ("width", r"a vector has \d+ numbers, and \d+ by the checkpoint's own library; this was made of another"),
        ("nan", r"the teacher's output for '.*1\.jpg' is not finite, and so for 1 of 3 samples"),
    ],
)
def test_a_difference_is_refused(
    what: str, message: str, checkpoint: Checkpoint, files: ModelFiles, photos: Sequence[Path]
) -> None:
    with pytest.raises(RecipeError, match=message):
        prove(Towers(files), other(checkpoint, Other(checkpoint.own, what)), files.score, photos[:3], ["a cat"])


def other(checkpoint: Checkpoint, own: Any) -> Checkpoint:
    return dataclasses.replace(checkpoint, own=own, default=None)


class Counted(Other):
    """How much is asked for at once."""

    def __init__(self, own: Any) -> None:
        super().__init__(own, "nothing")
        self.frames: list[int] = []
        self.read = 0

    def images(self, frames: Any) -> Any:
        self.frames.append(len(frames))
        return super().images(frames)

    def texts(self, texts: Any) -> Any:
        self.read += 1
        return super().texts(texts)


def test_photos_are_compared_a_few_at_a_time_and_texts_once(
    checkpoint: Checkpoint, files: ModelFiles, photos: Sequence[Path]
) -> None:
    """A hundred photos in their full size are gigabytes."""
    counted = Counted(checkpoint.own)
    found = prove(Towers(files), other(checkpoint, counted), files.score, photos[:40], ["a cat"])
    assert (found["images"], counted.frames, counted.read) == (40, [16, 16, 8], 1)
    assert "default_error" not in found


def test_the_librarys_own_default_is_compared_too(
    checkpoint: Checkpoint, files: ModelFiles, photos: Sequence[Path]
) -> None:
    found = prove(Towers(files), checkpoint, files.score, photos[:16], ["a cat"])
    if checkpoint.default is None:  # open_clip's is Pillow
        assert "default_error" not in found
    else:
        assert found["default_error"] > found["score_error"], "torchvision rounds otherwise"


def test_a_text_of_the_data_that_is_read_otherwise_says_what_to_do(tmp_path: Path, photos: Sequence[Path]) -> None:
    """What ftfy does by looking at more than one character, open_clip's tokenizer.json does not."""
    folder = save_open_clip(tmp_path / "open_clip")
    checkpoint = family_of(folder).load(folder)
    files = adopt(checkpoint, tmp_path / "files", {}, "")
    prove(Towers(files), checkpoint, files.score, photos[:2], ["猫！", "ｶﾞﾀ", "ﬁsh“s”"])
    for text in ("salt &amp; pepper", "ΓΆΤΟΣ"):
        with pytest.raises(RecipeError, match=rf"of \d+ texts, 1 get other .* such as '{text}'; word it in plain"):
            prove(Towers(files), checkpoint, files.score, photos[:2], ["a cat", text])


def test_a_number_that_is_not_finite_names_the_sample() -> None:
    check_finite(np.zeros((2, 3), np.float32), ["a", "b"])
    with pytest.raises(RecipeError, match="the teacher's output for 'b' is not finite, and so for 1 of 2 samples"):
        check_finite(np.array([[0, 1], [np.inf, 0]], np.float32), ["a", "b"])


def test_content_follows_the_files(tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path / "open_clip")
    before = content(str(folder))
    (folder / "notes.md").write_text("not read", encoding="utf-8")
    assert content(str(folder)) == before
    (folder / "README.md").write_text("another card", encoding="utf-8")
    assert content(str(folder)) != before
