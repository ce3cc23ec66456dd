"""Prune with a checkpoint as the teacher: to a share of its parameters, to milliseconds, fewer tokens, other towers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from compress.augment import Augment
from compress.checkpoints import Checkpoint, transformers_siglip
from compress.distill import main
from compress.draft import Draft, ModelFiles
from compress.encode import encode_texts
from compress.models.dual_encoder import count, load_model, to_input
from compress.recipe import load_recipe
from compress.steps import check_steps, run_steps
from compress.steps.distill import Distill
from compress.steps.embed import Embed
from compress.steps.prune import Prune
from compress.steps.teach import Teach
from compress.views import views
from runtimes import RecipeError, Unavailable
from tests.checkpoints import save_clip, save_open_clip, save_siglip
from tests.photos import picture, save

CLASSES = ("apple", "green pear", "zebra fish", "wooden chair", "purple submarine")
EMBED = Embed(views=1, phrases=60, held_out=10, words=20)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred photos of five classes."""
    root = tmp_path_factory.mktemp("shop")
    for place, name in enumerate(CLASSES):
        for number in range(20):
            save(root / name / f"{number:03d}.jpg", picture(100 * place + number, 48))
    return root


@pytest.fixture(scope="module")
def embedded(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Draft]:
    """A checkpoint by the name of its family, as a teacher with its store."""

    @cache
    def made(name: str) -> Draft:
        folder = {"clip": save_clip, "siglip": save_siglip}[name](tmp_path_factory.mktemp(name))
        recipe = load_recipe("small", [f"teach.source={folder}", f"data.root={shop}"])
        recipe = dataclasses.replace(recipe, steps=(recipe.steps[0], EMBED))
        check_steps(recipe)
        return run_steps(recipe, tmp_path_factory.mktemp("run"))

    return made


def pruned(draft: Draft, folder: Path, asked: Prune) -> tuple[ModelFiles, dict[str, object]]:
    folder.mkdir(exist_ok=True)
    after = asked.run(dataclasses.replace(draft, folder=folder, out=folder))
    assert after.student is not None
    found = {name.removeprefix("prune."): value for name, value in after.metrics.items() if name.startswith("prune.")}
    return after.student, found


def shown_apart(teacher: ModelFiles, student: ModelFiles, folder: Path) -> float:
    """By how much (of 255, the mean) what both see of a wide and a tall photo differs, over three views."""
    ramp = (np.add.outer(np.arange(120), np.arange(160)) * 0.9).astype(np.uint8)[..., None].repeat(3, 2)
    photos = [save(folder / f"{name}.jpg", frame) for name, frame in (("wide", ramp), ("tall", ramp.swapaxes(0, 1)))]
    how, rows = (Augment(crop=0.5), 0, 0), np.arange(2)
    one, two = (views(photos, (teacher.image, files.image), how, folder, "read") for files in (teacher, student))
    return max(float(np.abs(one(rows, at).astype(int) - two(rows, at)).mean()) for at in range(3))


def test_a_share_of_a_clip_stays(embedded: Callable[[str], Draft], tmp_path: Path) -> None:
    draft = embedded("clip")
    teacher = draft.teacher
    assert teacher is not None
    files, found = pruned(draft, tmp_path, Prune(params=0.4, samples=128))
    whole = teacher.image.params + teacher.text.params
    left = files.image.params + files.text.params
    assert 0.85 * 0.4 * whole < left <= 0.4 * whole
    assert found["share"] == left / whole
    assert found["text_shape"] == f"width {files.text.options['width']}; " + str(found["text_shape"]).partition("; ")[2]
    assert files.text.options["width"] < 64, "the table of words is nearly all there is"
    model = load_model(files)
    assert (count(model.image), count(model.text)) == (files.image.params, files.text.params)
    assert (files.image.resize, files.image.crop) == ("area", "center")
    assert (teacher.image.resize, teacher.image.crop) == ("pil-bicubic", "center-after")
    assert shown_apart(teacher, files, tmp_path) < 2
    assert (files.score, files.logit_scale, files.dim) == (teacher.score, teacher.logit_scale, teacher.dim)
    assert files.text.tokenizer.read_bytes() == teacher.text.tokenizer.read_bytes()
    assert files.text.tokenizer != teacher.text.tokenizer


def test_fewer_tokens_and_then_a_share(embedded: Callable[[str], Draft], tmp_path: Path) -> None:
    draft = embedded("clip")
    teacher = draft.teacher
    assert teacher is not None
    asked = Prune(params=0.07, text_options={"vocab": 3000}, text_layers=1, image_blocks=1, samples=128)
    files, found = pruned(draft, tmp_path, asked)
    assert 0.06 < float(str(found["share"])) <= 0.07
    assert files.text.options["vocab"] == 3000
    assert (len(files.image.without), len(files.text.without)) == (1, 1)
    whole, fewer = (Tokenizer.from_file(str(each.text.tokenizer)) for each in (teacher, files))
    assert fewer.get_vocab_size() == 3000
    for text in (f"a photo of {name}" for name in CLASSES):
        assert fewer.encode(text).tokens == whole.encode(text).tokens
    assert fewer.token_to_id("<|endoftext|>") == files.text.options["end"] == files.text.options["pad"]


def test_texts_whose_tokens_stay_keep_their_vectors(embedded: Callable[[str], Draft], tmp_path: Path) -> None:
    draft = embedded("siglip")
    teacher = draft.teacher
    assert teacher is not None
    files, _ = pruned(draft, tmp_path, Prune(text_options={"vocab": 70}, samples=128))
    assert files.text.params < teacher.text.params
    texts = [f"a photo of {name}" for name in CLASSES]
    one, two = (
        encode_texts(load_model(each), Tokenizer.from_file(str(each.text.tokenizer)), texts)
        for each in (teacher, files)
    )
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_a_siglip_whose_joint_space_was_its_own_stream(embedded: Callable[[str], Draft], tmp_path: Path) -> None:
    draft = embedded("siglip")
    teacher = draft.teacher
    assert teacher is not None
    files, _ = pruned(draft, tmp_path, Prune(params=0.3, samples=128))
    assert files.image.options["width"] < 64
    assert len(files.image.options["each_heads"]) == 3, "two layers, and what pools"
    assert (files.score, files.logit_bias) == ("sigmoid", teacher.logit_bias)
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    with torch.no_grad():
        assert load_model(files).encode_image(to_input(frames, files.image.mean, files.image.std)).shape == (2, 64)


def test_of_the_image_side_alone_a_share_or_milliseconds(embedded: Callable[[str], Draft], tmp_path: Path) -> None:
    draft = embedded("clip")
    teacher = draft.teacher
    assert teacher is not None
    files, found = pruned(draft, tmp_path, Prune(image_params=0.5, latency="10000ms@ort:cpu", samples=128))
    assert 0.85 * 0.5 * teacher.image.params < files.image.params <= 0.5 * teacher.image.params
    assert files.text.params == teacher.text.params
    assert 0 < float(str(found["latency_ms"])) <= 10000
    assert "text_shape" not in found
    assert not list(files.image.weights.parent.glob("*.onnx"))
    assert found["latency"] == "10000ms@ort:cpu"


def test_any_network_of_timm_can_be_the_student(embedded: Callable[[str], Draft], tmp_path: Path) -> None:
    draft = embedded("clip")
    asked = Prune(image="timm_image", image_options={"model": "lcnet_050"}, image_params=0.8, samples=128)
    files, found = pruned(draft, tmp_path, asked)
    assert (files.image.name, files.image.options) == ("timm_image", {"model": "lcnet_050"})
    assert (files.image.mean, files.image.resize, files.image.crop) == ((0.5,) * 3, "area", "center")
    assert load_model(files).image.projection.out_features == 48
    assert "image_shape" not in found
    assert 0 <= float(str(found["val_top1"])) <= 1
    with pytest.raises(
        RecipeError, match=r"prune.params cuts transformers, such as a checkpoint's .*, and not timm_image"
    ):
        (tmp_path / "again").mkdir()
        pruned(draft, tmp_path / "again", dataclasses.replace(asked, params=0.5))


def test_distilling_brings_a_cut_transformer_back_to_its_teacher(
    embedded: Callable[[str], Draft], tmp_path: Path
) -> None:
    draft = embedded("siglip")
    cut = Prune(params=0.3, samples=128).run(dataclasses.replace(draft, folder=tmp_path, out=tmp_path))
    folder = tmp_path / "distilled"
    folder.mkdir()
    asked = Distill(epochs=8, batch=16, phrases=16, lr=2e-3, text_lr=1e-3, average=0.0)
    after = asked.run(dataclasses.replace(cut, folder=folder)).metrics
    assert float(after["distill.val_cosine"]) > float(after["prune.val_cosine"]) + 0.05


def test_targets_are_held_against_the_checkpoint_before_any_work(tmp_path: Path) -> None:
    teach = Teach(source=str(save_siglip(tmp_path / "siglip")))
    fits = Prune(params=0.4, image_blocks=1, text_layers=1, text_options={"vocab": 60}, latency="5ms@ov:cpu")
    fits.check_after([teach])
    network = {"image": "timm_image", "image_options": {"model": "lcnet_050"}}
    Prune(**network, image_params=0.5).check_after([teach])
    Distill(train_size=64).check_after([teach, Prune(**network)])
    Distill(train_size=32).check_after([teach, Prune()])
    asked: Prune | Distill | Embed
    for asked, says in (
        (
            Prune(params=0.01),
            r"prune.params: \d+ parameters were asked for, and the smallest shape of image and text h",
        ),
        (Prune(text_layers=3), r"prune.text_layers is 3, and transformer_text has 2 of them"),
        (Prune(image_blocks=3), r"prune.image_blocks: 3 blocks were to be left out, and the tower has 2"),
        (Prune(size=64), r"the image tower vit takes no frames of 64 pixels"),
        (Prune(text_options={"width": 8}), r"\[prune.text_options\] has no field 'width'; fields: vocab"),
        (Prune(text_options={"vocab": 10}), r"has 73 tokens, of which \d+ must stay for single characters"),
        (Prune(latency="0.00001ms@ort:cpu"), r"prune.latency: 1e-05 ms on ort:cpu were asked for, and the smallest s"),
        (Prune(inherit=False), r"holds weights that it cannot draw anew"),
        (Prune(**network, latency="1ms@ov:cpu"), r"prune.latency cuts transformers, .* and not timm_image"),
        (
            Prune(image="timm_image", image_options={"model": "test_vit"}, image_params=0.8, size=160),
            r"prune.image_params cuts the channels of convolutional networks, and the image tower timm_image has a "
            r"VisionTransformer \(body\), which cannot be cut; leave it at 1, or choose another tower",
        ),
        (Distill(train_size=64), r"the image tower vit takes no frames of 64 pixels"),
        (Embed(train_size=64), r"the image tower vit takes no frames of 64 pixels"),
    ):
        with pytest.raises(RecipeError, match=says):
            asked.check_after([teach])
    with pytest.raises(
        RecipeError, match=r"prune.params cuts transformers, .*, and not efficientnet_lite0; leave it out"
    ):
        Prune(params=0.5).check_after([Teach()])
    with pytest.raises(Unavailable, match=r"prune.latency: there is no ov:gpu.9 here"):
        Prune(latency="5ms@ov:gpu.9").check()


def test_a_checkpoint_is_read_once_whoever_asks_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = transformers_siglip.load

    def load(folder: Path) -> Checkpoint:
        read.append(folder)
        return real(folder)

    monkeypatch.setattr(transformers_siglip, "load", load)
    teach = Teach(source=str(save_siglip(tmp_path / "siglip")))
    teach.check()
    Embed(train_size=32).check_after([teach])
    Prune(params=0.4).check_after([teach])
    assert len(read) == 1
    (tmp_path / "siglip" / "config.json").touch()
    teach.check()
    assert len(read) == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"params": 0.0}, r"prune\.params is a share, above 0 and at most 1, got 0\.0"),
        ({"params": 1.5}, r"prune\.params is a share, above 0 and at most 1, got 1\.5"),
        ({"latency": "fast"}, r"prune\.latency is milliseconds and a target, such as 5ms@ov:cpu, got 'fast'"),
    ],
)
def test_fields_are_checked(fields: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Prune(**fields)  # type: ignore[arg-type]


SAVE: dict[str, Callable[[Path], Path]] = {"clip": save_clip, "siglip": save_siglip, "open_clip": save_open_clip}
FEWER = ("prune.params=0.06", "prune.text_options={vocab=3000}")  # else the table of words is nearly all there is


@pytest.mark.long
@pytest.mark.parametrize("name", SAVE)
def test_from_a_checkpoint_to_a_small_student(name: str, shop: Path, tmp_path: Path) -> None:
    import sdk

    folder = SAVE[name](tmp_path / "checkpoint")
    sets = (
        *(f"teach.source={folder}", f"data.root={shop}", "embed.views=2", "embed.phrases=60", "embed.held_out=10"),
        *("embed.words=20", "distill.epochs=2", "distill.batch=16", "distill.phrases=16", "gate.alpha=0"),
        *("gate.max_drop=100", "gate.max_map_drop=1", "gate.golden=4", "quantize.samples=24", "quantize.held_out=16"),
        *('quantize.quantizers=["nncf_ptq"]', "pack.seconds=0.2", "disk_mb=100", "prune.samples=128"),
        'prune.latency="10000ms@ort:cpu"',
        *(() if name == "siglip" else FEWER),
    )
    words = [word for each in sets for word in ("--set", each)]
    assert main(["small", "--out", str(tmp_path / "out"), *words]) == 0
    steps = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["steps"]
    assert 0 < steps["pack.latency_ms"] < 10000
    assert steps["distill.val_cosine"] > steps["prune.val_cosine"]
    assert 0.8 < steps["prune.share"] / (0.4 if name == "siglip" else 0.06) <= 1
    with sdk.load(tmp_path / "out" / "student", on="ov:cpu") as student:
        assert student.ran_on["image"].variant == "int8"
        assert {answer.label for answer in student.classify(picture(1, 48), k=5)} == set(CLASSES)
