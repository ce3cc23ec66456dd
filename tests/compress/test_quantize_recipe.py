"""`python -m compress.distill quantize`: a checkpoint in, the same in int8 out, with nothing trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sdk
from benchmarks import peers
from benchmarks.json_lines import read_lines
from compress import prove
from compress.checkpoints import family_of
from compress.distill import main
from compress.draft import Draft
from compress.recipe import load_recipe
from compress.steps import check_steps, read_step, step_key
from compress.steps.teach import Teach
from runtimes import RecipeError
from sdk.frames import read_frame
from tests.checkpoints import CARD, save_clip, save_open_clip, save_siglip
from tests.photos import picture, save

QUICK = (
    *("gate.max_drop=100", "gate.max_map_drop=1", "gate.golden=4", "gate.alpha=0", "quantize.samples=24"),
    *('quantize.quantizers=["nncf_ptq"]', "quantize.held_out=16", "pack.seconds=0.2", "disk_mb=100"),
)
CLASSES = ("apple", "green pear", "zebra fish", "wooden chair", "purple submarine")
APPLE = "---\nlicense: other\nlicense_name: apple-amlr\n---\n# Research\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred photos, wide and tall, of five classes."""
    root = tmp_path_factory.mktemp("shop")
    for place, name in enumerate(CLASSES):
        for number in range(20):
            frame = picture(100 * place + number, 96)
            frame = frame[: 60 + number] if number % 2 else frame[:, : 60 + number]
            save(root / name / f"{number:03d}.jpg", np.ascontiguousarray(frame))
    return root


def run(source: Path, shop: Path, out: Path, *more: str) -> int:
    sets = [word for each in (f"teach.source={source}", f"data.root={shop}", *QUICK) for word in ("--set", each)]
    return main(["quantize", "--out", str(out), *sets, *more])


SAVE: dict[str, Callable[[Path, str], Path]] = {"clip": save_clip, "siglip": save_siglip, "open_clip": save_open_clip}


@pytest.mark.parametrize(
    "name", ["clip", pytest.param("siglip", marks=pytest.mark.slow), pytest.param("open_clip", marks=pytest.mark.slow)]
)
def test_from_a_checkpoint_to_a_bundle_that_answers(
    name: str, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """open_clip's is for research only, as MobileCLIP's weights are, and must say so in all that is made of it."""
    research = name == "open_clip"
    folder = SAVE[name](tmp_path / "checkpoint", APPLE if research else CARD)
    assert run(folder, shop, tmp_path / "out", *(["--accept-licence"] if research else [])) == 0
    checkpoint = family_of(folder).load(folder)
    photos = sorted(shop.rglob("*.jpg"))
    frames = [read_frame(path) for path in photos]
    with sdk.load(tmp_path / "out" / "teacher", on="ov:cpu", precision="fp32") as teacher:
        seen = np.concatenate([teacher.embed_images(frame) for frame in frames])
        said = [teacher.classify(frame, k=5) for frame in frames[:10]]
        prompts = [item.prompts for item in teacher.bundle.manifest.labels.items]
    own_seen = checkpoint.own.images(frames)
    own_read = checkpoint.own.texts([text for each in prompts for text in each])
    assert (seen * own_seen).sum(1).min() >= 0.9995
    mean = own_read.reshape(len(prompts), -1, own_read.shape[1]).mean(1)
    near = own_seen[:10] @ (mean / np.linalg.norm(mean, axis=1, keepdims=True)).T
    logits = checkpoint.score.logit_scale * near + checkpoint.score.logit_bias
    odds = np.exp(logits - logits.max(1, keepdims=True))
    wanted = 1 / (1 + np.exp(-logits)) if name == "siglip" else odds / odds.sum(1, keepdims=True)
    got = np.array(
        [[next(a.score for a in answers if a.label == label) for label in sorted(CLASSES)] for answers in said]
    )
    np.testing.assert_allclose(got, wanted, atol=1e-3)
    with sdk.load(tmp_path / "out" / "student", on="ov:cpu") as student:
        assert student.ran_on["image"].variant == "int8"
        assert student.bundle.manifest.licences.upstream == {"checkpoint": "apple-amlr" if research else "mit"}
        restricted = "apple-amlr (research only, not for commercial use)"
        assert student.bundle.manifest.licences.package == (restricted if research else "Apache-2.0")
        card = student.bundle.file("card.md").read_text(encoding="utf-8")
        assert ("- checkpoint: apple-amlr" in card, f"**Licence: {restricted}.**" in card) == (research, research)
    steps = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["steps"]
    assert steps["teach.parity.tokens"] == 1
    assert steps["teach.parity.cosine_min"] >= 0.9995
    assert "| token ids | 2" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    if name != "open_clip":
        beside_others(folder, tmp_path / "out" / "student", shop)
    told = [str(folder), str(tmp_path / "out" / "teacher"), "--photos", str(shop), "--on", "ov:cpu"]
    assert prove.main(told) == 0
    assert "| vectors of images | 100 images | cosine at least 0.99" in capsys.readouterr().out
    assert prove.main([str(save_open_clip(tmp_path / "other", dim=32)), *told[1:]]) == 2
    other = "get other tokens from the tokenizer.json" if name == "clip" else "this was made of another checkpoint"
    assert other in capsys.readouterr().err


def beside_others(folder: Path, bundle: Path, shop: Path) -> None:
    """The same weights by transformers: in f32 the same probabilities. optimum-intel is measured if it is here."""
    asked = [str(folder), "--bundle", str(bundle), "--images", str(shop), "--labels", "2,5", "--quick"]
    assert peers.main(asked) == 0
    (_, machine), (_, found), *samples = read_lines(bundle.parent / "peers/peers.jsonl")
    assert machine["quick"]
    names = [row["name"] for row in found["figures"]]
    assert names[:2] == ["ours int8", "ours fp32 in f32"]
    assert names[-1] == "transformers, PyTorch"
    if "optimum-intel" in found["skipped"]:
        assert "-m pip install optimum-intel, or name a Python that has it" in found["skipped"]["optimum-intel"]
    else:
        assert "optimum-intel" in names
    exact = [pair for pair in found["agreement"] if pair["ours"] == "ours fp32 in f32"]
    assert {pair["labels"] for pair in exact} == {2, 5}
    assert max(pair["largest"] for pair in exact if pair["other"] == "transformers, PyTorch") <= 1e-3
    timed = [row for _, row in samples if row["metric"] == "frame"]
    assert {(row["contender"], row["labels"]) for row in timed} == {(each, count) for each in names for count in (2, 5)}
    page = (bundle.parent / "peers/peers.md").read_text(encoding="utf-8")
    assert "a quick look, not for a decision" in page
    assert all(name in page for name in names)


def test_without_a_source_there_is_nothing_to_quantize(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", "--set", f"data.root={shop}", "--out", str(tmp_path / "out")]) == 2
    assert "[quantize] has no student: name a checkpoint that is to be quantized as it is" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_used_is_told_before_any_work(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_clip(tmp_path / "clip", card=APPLE)
    assert run(folder, shop, tmp_path / "out") == 2
    assert "for research only (apple-amlr), and so is every student made of them" in capfd.readouterr().err
    (folder / "tokenizer.json").unlink()
    assert run(folder, shop, tmp_path / "out", "--accept-licence") == 2
    said = capfd.readouterr().err
    assert said.startswith("error: teach.source: ") and "has no tokenizer" in said
    assert not (tmp_path / "out").exists()


def test_a_research_licence_goes_along_with_the_student(shop: Path, tmp_path: Path) -> None:
    from compress.data import open_dataset
    from compress.deploy import contents
    from compress.steps import run_steps

    folder = save_open_clip(tmp_path / "mobile", card=APPLE)
    sets = [f"teach.source={folder}", "teach.accept_licence=true", f"data.root={shop}", *QUICK]
    recipe = load_recipe("quantize", sets)
    only = type(recipe)(**{**vars(recipe), "steps": recipe.steps[:1]})
    check_steps(only)
    draft = run_steps(only, tmp_path / "out")
    assert draft.teacher is not None
    assert draft.teacher.licences == {"mobile": "apple-amlr"}
    assert draft.teacher.restricted == "apple-amlr"
    corpus = open_dataset("photos", {"root": str(shop)}).load()
    both = len(corpus.train.images) + len(corpus.val.images)
    assert draft.metrics["teach.parity.images"] == both > 5 * len(corpus.val.images), "of both splits"
    assert contents(draft, corpus, "teacher", 4).licence == "apple-amlr (research only, not for commercial use)"
    again = read_step(tmp_path / "out" / ".work" / "01-teach", tmp_path / "out")
    assert again is not None
    assert again[1].teacher == draft.teacher


def test_a_number_that_is_not_finite_names_the_text(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_clip(tmp_path / "clip")
    state = load_file(folder / "model.safetensors")
    word = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]["zebra</w>"]
    state["text_model.embeddings.token_embedding.weight"][word] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert run(folder, shop, tmp_path / "out") == 2
    assert "the teacher's output for 'a photo of zebra fish' is not finite" in capfd.readouterr().err


def test_validation_names_what_is_not_finite(shop: Path, tmp_path: Path) -> None:
    """Each photo and label of it; the comparison with the checkpoint looks at a hundred."""
    import torch

    from compress.adopt import adopt
    from compress.data import open_dataset
    from compress.models.dual_encoder import load_model
    from compress.validate import validate

    folder = save_clip(tmp_path / "clip")
    files = adopt(family_of(folder).load(folder), tmp_path / "files", {}, "")
    corpus = open_dataset("photos", {"root": str(shop)}).load()
    frames = np.zeros((len(corpus.val.images), 32, 32, 3), np.uint8)
    words = json.loads(files.text.tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    model = load_model(files)
    assert 0 <= validate(model, files, corpus, frames)["val_top1"] <= 1
    with torch.no_grad():
        model.text.tower.words.weight[words["zebra</w>"]] = float("nan")
    with pytest.raises(RecipeError, match="the model's output for 'zebra fish' is not finite, and so for 1 of 5"):
        validate(model, files, corpus, frames)
    with torch.no_grad():
        model.image.tower.positions[0] = float("inf")
    with pytest.raises(RecipeError, match=rf"the model's output for '{corpus.val.images[0]}' is not finite"):
        validate(model, files, corpus, frames)


def test_embed_runs_with_a_checkpoint_and_names_what_is_not_finite(shop: Path, tmp_path: Path) -> None:
    """Its phrases are of words that the checkpoint's tokenizer knows."""
    import dataclasses

    from safetensors.torch import load_file, save_file

    from compress.steps import run_steps
    from compress.steps.embed import Embed

    folder = save_clip(tmp_path / "clip")
    recipe = load_recipe("quantize", [f"teach.source={folder}", f"data.root={shop}"])
    embed = Embed(views=2, phrases=60, held_out=10, words=200)
    recipe = dataclasses.replace(recipe, steps=(recipe.steps[0], embed))
    check_steps(recipe)
    draft = run_steps(recipe, tmp_path / "out")
    assert draft.metrics["embed.vectors"] > 2 * 70 + 60
    teacher = draft.teacher
    assert teacher is not None
    state = load_file(teacher.text.weights)
    words = json.loads(teacher.text.tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    state["tower.words.weight"][words["here</w>"]] = float("inf")  # of a template, and of no text in the proof
    save_file(state, teacher.text.weights)
    (tmp_path / "again").mkdir()
    with pytest.raises(RecipeError, match=r"the teacher's output for 'the \w+ is here' is not finite, and so for"):
        embed.run(dataclasses.replace(draft, folder=tmp_path / "again"))


def test_the_key_holds_what_is_in_the_checkpoint(tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path / "open_clip")
    teach = Teach(source=str(folder))
    before = step_key(teach, 0, "")
    assert step_key(teach, 0, "") == before
    (folder / "README.md").write_text("---\nlicense: bsd\n---\n", encoding="utf-8")
    assert step_key(teach, 0, "") != before


@pytest.mark.parametrize("fields", [{"licence": "mit"}, {"accept_licence": True}])
def test_a_licence_is_of_a_checkpoint(fields: dict[str, object]) -> None:
    with pytest.raises(
        RecipeError, match=r"teach.licence and accept_licence are about a checkpoint; name it, teach.sou"
    ):
        Teach(**fields)


def test_retraining_needs_a_store(tmp_path: Path) -> None:
    recipe = load_recipe("quantize", ["teach.source=here", "gate.qat_epochs=1"])
    with pytest.raises(
        RecipeError, match=r"gate.qat_epochs retrains the student from what \[embed\] stores, and no step"
    ):
        recipe.steps[2].check_after(recipe.steps[:2])  # type: ignore[attr-defined]


def test_drafts_of_older_runs_are_read(tmp_path: Path) -> None:
    """Without score, bias and the rest, as runs before had them."""
    tower = {"name": "vit", "options": {}, "weights": "w", "params": 1}
    teacher = {
        "image": {**tower, "size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]},
        "text": {**tower, "max_length": 7, "tokenizer": "t"},
        "dim": 4,
        "logit_scale": 20.0,
    }
    text = json.dumps({"out": ".", "folder": ".", "seed": 0, "dataset": {"name": "photos"}, "teacher": teacher})
    found = Draft.from_json(text, tmp_path).teacher
    assert found is not None
    assert (found.score, found.logit_bias, found.restricted) == ("softmax", 0.0, "")
    assert (found.image.resize, found.image.crop) == ("area", "none")
