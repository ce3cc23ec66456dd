"""What a teacher learns from photos: labels as on the device, captions, mixed images; and where it starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from compress import teaching
from compress.augment import Augment
from compress.data import Corpus, open_dataset
from compress.draft import DatasetSpec, Draft
from compress.encode import class_vectors, encode_frames, top1
from compress.losses import cosines
from compress.models import text_tower
from compress.models.dual_encoder import Shape
from compress.models.image import timm_image
from compress.prepared import prepared
from compress.steps.teach import Teach
from compress.teaching import Lesson
from runtimes import RecipeError
from tests.photos import folder_shop
from tests.tiny import few_images

TEACH = Teach(
    image="timm_image",
    image_options={"model": "lcnet_050"},
    text_options={"vocab": 3000},
    size=48,
    dim=16,
    max_length=12,
    epochs=4,
    train_size=32,
    fit=True,
    batch=8,
    average=0.9,
    mixup=0.4,
    margin=0.5,
    label=1.0,
    classifier=0.5,
    smoothing=0.1,
    augment=Augment(rotate=False, crop=0.5, source=4 / 3, brightness=0.2, contrast=0.2, saturation=0.2),
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    root = folder_shop(tmp_path_factory.mktemp("shop"), {"pear": 12, "plum": 12, "fig": 12})
    return DatasetSpec("photos", {"root": str(root)})


def draft_in(folder: Path, shop: DatasetSpec) -> Draft:
    folder.mkdir()
    return Draft(out=folder, folder=folder, seed=0, dataset=shop)


def lesson(asked: Teach, draft: Draft) -> tuple[Lesson, Corpus]:
    corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
    fields = {item.name: getattr(asked, item.name) for item in dataclasses.fields(Shape) if item.name != "answers"}
    return Lesson(asked, Shape(**fields, answers=corpus.answers), corpus, draft), corpus


def test_labels_are_learnt_as_the_device_will_compare_them(shop: DatasetSpec, tmp_path: Path) -> None:
    only = dataclasses.replace(TEACH, align=0.0, margin=0.0, classifier=0.0, mixup=0.0, smoothing=0.0)
    learning, corpus = lesson(only, draft_in(tmp_path / "run", shop))
    model = learning.model.eval()
    chosen = np.arange(6)
    pooled = torch.randn(6, int(model.image.tower.width), generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    with torch.no_grad():
        loss = learning._meet(pooled, chosen, np.random.default_rng(0))
        tokenizer: Tokenizer = text_tower("minilm").tokenizer(TEACH.text_options, TEACH.max_length)
        classes = class_vectors(model, tokenizer, corpus.labels)
        vectors = F.normalize(model.image.projection(pooled), dim=-1)
        wanted = F.cross_entropy(model.scale() * vectors @ classes.T, torch.from_numpy(corpus.train.label[chosen]))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_the_classifier_learns_the_tower_and_is_thrown_away(shop: DatasetSpec, tmp_path: Path) -> None:
    alone = dataclasses.replace(TEACH, align=0.0, margin=0.0, label=0.0, classifier=2.0)
    learning, corpus = lesson(alone, draft_in(tmp_path / "run", shop))
    linear, pooled = learning.learner[1], torch.randn(6, int(learning.model.image.tower.width))  # type: ignore[arg-type]
    loss = learning._meet(pooled, np.arange(6), np.random.default_rng(0))
    label = torch.from_numpy(corpus.train.label[:6])
    assert loss.item() == pytest.approx(2 * F.cross_entropy(linear(pooled), label, label_smoothing=0.1).item())
    optimizer, _ = learning.optimizer()
    learning.learner.train()
    tower = next(learning.model.image.tower.parameters())
    before = linear.weight.clone(), tower.clone()  # type: ignore[operator]
    learning.loss(0).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert (linear.weight != before[0]).any()
    assert (tower != before[1]).any()
    assert not {name for name in learning.model.state_dict() if "classifier" in name}
    assert len(lesson(dataclasses.replace(TEACH, classifier=0.0), draft_in(tmp_path / "other", shop))[0].learner) == 1


def test_training_frames_are_smaller_and_every_task_counts(
    shop: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning, corpus = lesson(TEACH, draft_in(tmp_path / "run", shop))
    rounds = len(corpus.train.images) // TEACH.batch
    assert (learning.steps, learning.head_steps) == (4 * rounds, 0)
    sizes: set[int] = set()
    real = teaching.augment_batch

    def noted(*arguments: Any) -> Any:
        sizes.add(arguments[3])
        return real(*arguments)

    monkeypatch.setattr(teaching, "augment_batch", noted)
    for step in range(learning.steps):
        assert np.isfinite(learning.loss(step).item())
    assert sizes == {32}
    pooled = torch.randn(8, int(learning.model.image.tower.width))  # type: ignore[arg-type]
    whole = learning._meet(pooled, np.arange(8), np.random.default_rng(1)).item()
    for name in ("align", "margin", "label", "classifier"):
        learning._asked = dataclasses.replace(TEACH, **{name: 0.0})
        assert learning._meet(pooled, np.arange(8), np.random.default_rng(1)).item() < whole, name


def test_fitted_projections_know_the_labels_before_training(shop: DatasetSpec, tmp_path: Path) -> None:
    draft = draft_in(tmp_path / "run", shop)
    learning, corpus = lesson(TEACH, draft)
    model, normal = learning.model, (timm_image.MEAN, timm_image.STD)
    tokenizer: Tokenizer = text_tower("minilm").tokenizer(TEACH.text_options, TEACH.max_length)
    frames = prepared(corpus.train.images, TEACH.size, draft.out, "read")

    def right() -> float:
        model.eval()
        vectors = encode_frames(model, frames, normal)
        return top1(vectors, class_vectors(model, tokenizer, corpus.labels), corpus.train.label)

    before = right()
    learning.fit()
    assert right() > max(before, 0.8)


def test_images_without_labels_are_fitted_to_their_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With questions, which are asked of tokens at both sizes."""
    few_images(monkeypatch)
    asked = dataclasses.replace(TEACH, mixup=0.0, augment=Augment())
    learning, _ = lesson(asked, draft_in(tmp_path / "run", DatasetSpec("easy_vqa", {"val_images": 50})))
    learning._label[:] = -1

    def gap() -> float:
        """By how much captions are nearer that are true."""
        texts = torch.stack([learning._unit(wordings).mean(0) for wordings in learning._captions])
        near = cosines(learning.model.image.projection(learning._encode(1, np.arange(64))), texts)
        return (near[learning._matches == 1].mean() - near[learning._matches == 0].mean()).item()

    before = gap()
    learning.fit()
    assert gap() > max(0.1, 10 * abs(before))
    assert np.isfinite(learning.loss(0).item())
    assert np.isfinite(learning.head_loss(0).item())


def test_killed_in_training_it_ends_the_same_and_is_fitted_once(
    shop: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUPIL_CHECKPOINT_SECONDS", "0")
    whole = TEACH.run(draft_in(tmp_path / "whole", shop))
    cut = draft_in(tmp_path / "cut", shop)
    real, fit, fitted = Lesson.loss, Lesson.fit, []

    def killed(self: Lesson, step: int) -> torch.Tensor:
        if step == 3:
            raise KeyboardInterrupt
        return real(self, step)

    def counted(self: Lesson) -> None:
        fitted.append(1)
        fit(self)

    monkeypatch.setattr(Lesson, "fit", counted)
    monkeypatch.setattr(Lesson, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        TEACH.run(cut)
    monkeypatch.setattr(Lesson, "loss", real)
    again = TEACH.run(cut)
    assert fitted == [1]
    assert whole.teacher is not None
    assert again.teacher is not None
    assert whole.metrics == again.metrics
    assert whole.teacher.image.weights.read_bytes() == again.teacher.image.weights.read_bytes()


def test_mixed_images_have_no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    draft = draft_in(tmp_path / "run", DatasetSpec("easy_vqa", {"val_images": 50}))
    with pytest.raises(RecipeError, match=r"teach\.mixup cannot be used with questions: a mixed image has no answer"):
        TEACH.run(draft)


@pytest.mark.parametrize("field", ["size", "train_size"])
def test_sizes_are_tried_before_any_work(field: str) -> None:
    vit = dataclasses.replace(TEACH, image_options={"model": "vit_tiny_patch16_224"}, size=224, train_size=224)
    vit.check()
    with pytest.raises(RecipeError, match=r"timm_image takes no frames of 100 pixels \(.*\); choose another size"):
        dataclasses.replace(vit, **{field: 100}).check()  # type: ignore[arg-type]
