"""The step prune on a teacher of random weights and a few real images: what it asks for, cuts, keeps and says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from compress import channels
from compress.augment import Augment
from compress.data import open_dataset
from compress.distilling import Distilling
from compress.draft import DatasetSpec, Draft, ModelFiles
from compress.image_student import Photos, meet_teacher
from compress.models.dual_encoder import count, load_model, to_input
from compress.models.text import minilm
from compress.questions import tokens
from compress.steps.distill import Distill
from compress.steps.embed import Embed
from compress.steps.prune import Prune
from compress.steps.teach import Teach
from compress.store import Header, identity, open_store
from compress.views import views
from runtimes import RecipeError
from sdk.golden import unit_rows
from tests.small_models import LEFT_OUT, SHAPE, save_small, small_model
from tests.stores import write_store
from tests.tiny import few_images

DATA = DatasetSpec("easy_vqa", {"val_images": 50})


@pytest.fixture(scope="module", autouse=True)
def _few() -> Iterator[None]:
    """Few images, and importance measured twice only."""
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        patch.setattr(channels, "ROUNDS", 2)
        yield


@pytest.fixture(scope="module")
def teacher_draft(tmp_path_factory: pytest.TempPathFactory) -> Draft:
    """A teacher with residual blocks (Lite0), the whole vocabulary, one layer of text, and its store."""
    out = tmp_path_factory.mktemp("prune")
    corpus = open_dataset(DATA.name, DATA.fields).load()
    shape = dataclasses.replace(
        SHAPE, image="efficientnet_lite0", image_options={}, text_options={}, answers=corpus.answers
    )
    files = save_small(small_model(shape), out / "teacher", shape)
    drawn = np.random.default_rng(0).normal
    texts = tuple(dict.fromkeys([*(wording for wordings in corpus.captions for wording in wordings), "a", "b c"]))
    train, val = (unit_rows(drawn(size=(len(part.images), shape.dim))) for part in (corpus.train, corpus.val))
    arrays = {
        "train": train[None],
        "val": val,
        "texts": unit_rows(drawn(size=(len(texts), shape.dim))),
        "answers": drawn(size=(1, len(corpus.train.questions), len(corpus.answers))),
    }
    about = (identity(files), corpus.fingerprint, 0, shape.size, Augment(), 10.0, texts, 2, corpus.answers)
    write_store(out / "store", Header(*about), arrays)
    return Draft(out, out, 0, DATA, teacher=files, store=out / "store")


def pruned(draft: Draft, folder: Path, asked: Prune) -> tuple[ModelFiles, Draft]:
    after = asked.run(dataclasses.replace(draft, out=folder, folder=folder))
    assert after.student is not None
    return after.student, after


@pytest.fixture(scope="module")
def student(teacher_draft: Draft, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelFiles, Draft]:
    asked = Prune(image_params=0.7, image_blocks=1, text_layers=1, text_options={"vocab": 3000}, samples=128)
    return pruned(teacher_draft, tmp_path_factory.mktemp("student"), asked)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"image_params": 0.0}, r"prune\.image_params is a share, above 0 and at most 1, got 0\.0"),
        ({"image_params": 1.5}, r"prune\.image_params is a share, above 0 and at most 1, got 1\.5"),
        ({"image_blocks": -1}, "prune: image_blocks must not be negative, and text_layers at least 1"),
        ({"text_layers": 0}, "prune: image_blocks must not be negative, and text_layers at least 1"),
        ({"size": 20}, r"prune\.size must be at least 32 pixels, or 0 for the teacher's, got 20"),
        ({"samples": 100}, r"prune\.samples must be at least 128, got 100"),
        ({"image": "timm"}, "no image tower named 'timm'; image towers: efficientnet_lite0, .*, timm_image"),
    ],
)
def test_fields_are_checked(fields: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Prune(**fields)  # type: ignore[arg-type]


def test_a_student_from_scratch_has_the_same_shape(
    student: tuple[ModelFiles, Draft], teacher_draft: Draft, tmp_path: Path
) -> None:
    asked = Prune(image_params=0.7, image_blocks=1, text_layers=1, inherit=False, samples=128)
    fresh, _ = pruned(teacher_draft, tmp_path, asked)
    inherited = load_model(student[0]).image.state_dict()
    weights = load_model(fresh).image.state_dict()
    assert {name: each.shape for name, each in weights.items()} == {name: w.shape for name, w in inherited.items()}
    same = [name for name, each in weights.items() if each.ndim == 4 and torch.equal(each, inherited[name])]
    assert not same


def test_another_towers_options_are_checked_before_any_work() -> None:
    Prune().check()
    Prune(image="timm_image", image_options={"model": "lcnet_050"}).check()
    with pytest.raises(RecipeError, match=r"\[timm_image\] has no field 'modle'"):
        Prune(image="timm_image", image_options={"modle": "x"}).check()


def test_the_student_is_narrower_and_opens(student: tuple[ModelFiles, Draft], teacher_draft: Draft) -> None:
    files, draft = student
    teacher = teacher_draft.teacher
    assert teacher is not None
    model = load_model(files)
    assert files.image.params == count(model.image) <= 0.7 * teacher.image.params
    assert files.text.params == count(model.text) < teacher.text.params
    assert len(files.image.without) == 1
    assert files.image.without[0].startswith("body.blocks.")
    assert files.text.without == LEFT_OUT, "one layer was left, and one was asked for"
    assert (files.image.size, files.dim, files.logit_scale) == (teacher.image.size, teacher.dim, teacher.logit_scale)
    assert files.fusion is not None
    assert teacher.fusion is not None
    assert files.fusion.weights.read_bytes() == teacher.fusion.weights.read_bytes()
    assert all(path.is_relative_to(draft.out) for path in (files.image.weights, files.text.weights))
    assert teacher.image.weights.exists()
    assert set(files.licences) >= set(teacher.licences)


def test_the_metrics_say_what_is_left(student: tuple[ModelFiles, Draft]) -> None:
    files, draft = student
    found = {name.removeprefix("prune."): value for name, value in draft.metrics.items()}
    assert (found["image_params"], found["text_params"]) == (files.image.params, files.text.params)
    assert found["without"] == ", ".join((*files.image.without, *LEFT_OUT))
    assert found["val_n"] <= 50
    assert 0 <= float(found["val_top1"]) <= 1
    assert 0 <= float(found["val_answers"]) <= 1
    assert int(found["val_asked"]) > 50


def test_words_that_stay_keep_their_meaning(student: tuple[ModelFiles, Draft], teacher_draft: Draft) -> None:
    """The vocabulary was cut to what the data says and what is frequent: those texts give the same vectors."""
    corpus = open_dataset(DATA.name, DATA.fields).load()
    texts = [*corpus.captions[0], corpus.train.questions[0].text, *corpus.words]
    assert teacher_draft.teacher is not None
    vectors = []
    for files in (student[0], teacher_draft.teacher):
        feeds = tokens(Tokenizer.from_file(str(files.text.tokenizer)), texts)
        with torch.no_grad():
            vectors.append(load_model(files).text(*feeds))
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(*vectors, strict=True))
    assert student[0].text.options == {"vocab": 3000, "keep": list(corpus.words)}
    assert len(minilm.kept_ids(student[0].text.options)) == 3000


def test_nothing_is_cut_where_nothing_is_asked(teacher_draft: Draft, tmp_path: Path) -> None:
    files, _ = pruned(teacher_draft, tmp_path, Prune(image_params=1.0, samples=128))
    assert teacher_draft.teacher is not None
    teacher = teacher_draft.teacher
    assert files.text.weights.read_bytes() == teacher.text.weights.read_bytes()
    assert (files.text.options, files.text.without) == (teacher.text.options, LEFT_OUT)
    assert (files.image.params, files.image.without) == (teacher.image.params, ())


def test_another_tower_takes_the_place_of_the_teachers(teacher_draft: Draft, tmp_path: Path) -> None:
    """A transformer: five tokens for an image where the teacher's network has one."""
    asked = Prune(image="timm_image", image_options={"model": "test_vit"}, text_layers=4, samples=128)
    files, draft = pruned(teacher_draft, tmp_path, asked)
    assert (files.image.name, files.image.options) == ("timm_image", {"model": "test_vit"})
    assert (files.image.mean, files.image.std, files.image.without) == ((0.5,) * 3, (0.5,) * 3, ())
    assert files.text.without == LEFT_OUT, "more layers than there are change nothing"
    model = load_model(files)
    assert files.image.params == count(model.image) == draft.metrics["prune.image_params"]
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    with torch.no_grad():
        embedding, seen = model.image.both(to_input(frames, files.image.mean, files.image.std))
    assert files.fusion is not None
    assert embedding.shape == (2, 16)
    assert seen.shape == (2, files.fusion.image_tokens, 16)
    assert files.fusion.image_tokens > 1
    assert 0 <= float(draft.metrics["prune.val_answers"]) <= 1


def test_another_tower_starts_near_the_teacher_and_can_be_cut(teacher_draft: Draft, tmp_path: Path) -> None:
    """Fresh projections would give cosines about zero."""
    assert teacher_draft.teacher is not None
    assert teacher_draft.store is not None
    whole = teacher_draft.teacher.image.params
    asked = Prune(image="efficientnet_lite0", size=64, image_params=0.6, image_blocks=1, text_layers=4, samples=128)
    files, _ = pruned(teacher_draft, tmp_path, asked)
    assert files.image.size == 64
    assert files.image.params <= 0.6 * whole
    assert len(files.image.without) == 1
    corpus = open_dataset(DATA.name, DATA.fields).load()
    store = open_store(teacher_draft.store, identity(teacher_draft.teacher), corpus.fingerprint)
    model = load_model(files)
    seen = views(corpus.train.images, (teacher_draft.teacher.image, files.image), (Augment(), 0, 0), tmp_path, "read")
    photos = Photos(seen, store, (files.image.mean, files.image.std))
    meet_teacher(model.image, photos, np.arange(len(seen.plain)))
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(model.encode_image(photos.batch(np.arange(32))), dim=1)
    assert float((vectors * torch.from_numpy(store.train[0][:32].copy())).sum(1).mean()) > 0.3


def test_a_pruned_student_learns_and_needs_stored_answers(student: tuple[ModelFiles, Draft]) -> None:
    files, draft = student
    corpus = open_dataset(DATA.name, DATA.fields).load()
    assert draft.teacher is not None
    assert draft.store is not None
    store = open_store(draft.store, identity(draft.teacher), corpus.fingerprint)
    asked = Distill(epochs=1, batch=16, phrases=4, questions=2)
    task = Distilling(asked, files, corpus, store, draft)
    task.loss(0).backward()  # type: ignore[no-untyped-call]
    parameters = {name for name, value in task.model.named_parameters() if value.requires_grad and value.grad is None}
    assert not parameters, "text and answers are trained in the first step"

    task.model.zero_grad(set_to_none=True)
    task.loss(1).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in task.model.text.parameters()), "only every other step"

    task._store = dataclasses.replace(store, answers=None)
    with pytest.raises(TypeError, match="the store holds no answers"):
        task.loss(0)
    mute = Distilling(asked, files, corpus, dataclasses.replace(store, answers=None), draft)
    assert torch.isfinite(mute.loss(0))


def test_a_vocabulary_is_cut_once(student: tuple[ModelFiles, Draft], tmp_path: Path) -> None:
    files, draft = student
    folder = tmp_path / "again"
    folder.mkdir()
    again = dataclasses.replace(draft, teacher=files, folder=folder)
    with pytest.raises(
        RecipeError, match=r"asks for .*3000.*, and the teacher's text tower was made with .* already; leave out one"
    ):
        Prune(text_options={"vocab": 3000}).run(again)


@pytest.mark.parametrize(
    ("teach", "prune", "says"),
    [
        (Teach(), Prune(image_blocks=99), r"prune\.image_blocks: 99 blocks were to be left out, and the tower has 9"),
        (
            Teach(),
            Prune(image="efficientnet_lite0", image_blocks=99),
            r"prune\.image_blocks: 99 blocks were to be left out, and the tower has 9",
        ),
        (Teach(), Prune(text_layers=99), r"prune\.text_layers is 99, and minilm has 6 of them"),
        (Teach(), Prune(text_options={"vocb": 8000}), r"\[minilm\] has no field 'vocb' \(did you mean 'vocab'"),
        (Teach(text_options={"vocab": 20000}), Prune(text_options={"vocab": 8000}), "leave out one of the two"),
    ],
)
def test_targets_are_held_against_the_teacher_before_it_is_trained(teach: Teach, prune: Prune, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        prune.check_after([teach])


def test_targets_that_fit_pass() -> None:
    Prune(image_blocks=4, text_layers=2, text_options={"vocab": 8000}).check_after([Teach()])
    Prune().check_after([])


def test_other_sizes_and_fresh_weights_are_tried_before_any_work() -> None:
    vit = {"image": "timm_image", "image_options": {"model": "vit_tiny_patch16_224"}}
    teach, says = Teach(**vit, size=224), r"timm_image takes no frames of 100 pixels"  # type: ignore[arg-type]
    Embed(train_size=224).check_after([teach])
    Distill(train_size=224).check_after([teach])
    with pytest.raises(RecipeError, match=says):
        Embed(train_size=100).check_after([teach])
    with pytest.raises(RecipeError, match=says):
        Distill(train_size=100).check_after([teach, Prune()])
    with pytest.raises(RecipeError, match=says):
        Distill(train_size=100).check_after([Teach(), Prune(**vit, size=224)])  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"holds weights that it cannot draw anew; choose another image tower"):
        Prune(inherit=False).check_after([teach])
    with pytest.raises(RecipeError, match=r"embed\.train_size is of all views but the first; set embed\.views to 2"):
        Embed(train_size=64, views=1)


def test_a_student_that_sees_more_than_the_views_show_is_refused() -> None:
    lite = {"image": "efficientnet_lite0"}
    teach, asked = Teach(**lite, size=64), Prune(**lite, size=96)  # type: ignore[arg-type]
    asked.check_after([teach, Embed(views=1)])
    asked.check_after([teach, Embed(augment=Augment(source=1.5))])
    with pytest.raises(
        RecipeError, match=r"prune\.size is 96, and views are cut of frames of 64 pixels, .*; raise embed\.augment\.sou"
    ):
        asked.check_after([teach, Embed()])


def test_one_view_has_no_other_size(student: tuple[ModelFiles, Draft]) -> None:
    files, draft = student
    corpus = open_dataset(DATA.name, DATA.fields).load()
    store = open_store(draft.need("store", "test"), identity(draft.need("teacher", "test")), corpus.fingerprint)
    with pytest.raises(RecipeError, match=r"distill\.train_size is of all views but the first, and the store has one"):
        Distilling(Distill(batch=16, train_size=32), files, corpus, store, draft)
