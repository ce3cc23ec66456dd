"""What a teacher learns from photos: labels as on the device, captions, mixed images, and what is fresh first."""

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
from compress.encode import class_vectors
from compress.models import text_tower
from compress.models.dual_encoder import Shape
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
    probe_epochs=2,
    small=0.5,
    small_size=32,
    batch=8,
    average=0.9,
    mixup=0.4,
    margin=0.5,
    label=1.0,
    smoothing=0.1,
    augment=Augment(rotate=False, crop=0.5, source=64, brightness=0.2, contrast=0.2, saturation=0.2),
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
    only = dataclasses.replace(TEACH, align=0.0, margin=0.0, mixup=0.0, smoothing=0.0)
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


def test_the_first_epochs_are_small_and_every_task_counts(
    shop: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning, corpus = lesson(TEACH, draft_in(tmp_path / "run", shop))
    rounds = len(corpus.train.images) // TEACH.batch
    assert (learning.probe_steps, learning.steps, learning.head_steps) == (2 * rounds, 4 * rounds, 0)
    sizes: list[int] = []
    real = teaching.augment_batch

    def noted(*arguments: Any) -> Any:
        sizes.append(arguments[3])
        return real(*arguments)

    monkeypatch.setattr(teaching, "augment_batch", noted)
    for step in range(learning.steps):
        assert np.isfinite(learning.loss(step).item())
    assert sizes == [32] * 2 * rounds + [48] * 2 * rounds
    pooled = torch.randn(8, int(learning.model.image.tower.width))  # type: ignore[arg-type]
    whole = learning._meet(pooled, np.arange(8), np.random.default_rng(1)).item()
    for name in ("align", "margin", "label"):
        learning._asked = dataclasses.replace(TEACH, **{name: 0.0})
        assert learning._meet(pooled, np.arange(8), np.random.default_rng(1)).item() < whole, name


def test_killed_in_the_probe_it_ends_the_same(
    shop: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUPIL_CHECKPOINT_SECONDS", "0")
    whole = TEACH.run(draft_in(tmp_path / "whole", shop))
    cut = draft_in(tmp_path / "cut", shop)
    real = Lesson.probe_loss

    def killed(self: Lesson, step: int) -> torch.Tensor:
        if step == 3:
            raise KeyboardInterrupt
        return real(self, step)

    monkeypatch.setattr(Lesson, "probe_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        TEACH.run(cut)
    monkeypatch.setattr(Lesson, "probe_loss", real)
    again = TEACH.run(cut)
    assert whole.teacher is not None
    assert again.teacher is not None
    assert whole.metrics == again.metrics
    assert whole.teacher.image.weights.read_bytes() == again.teacher.image.weights.read_bytes()


def test_mixed_images_have_no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    draft = draft_in(tmp_path / "run", DatasetSpec("easy_vqa", {"val_images": 50}))
    with pytest.raises(RecipeError, match=r"teach\.mixup cannot be used with questions: a mixed image has no answer"):
        TEACH.run(draft)


@pytest.mark.parametrize("field", ["size", "small_size"])
def test_sizes_are_tried_before_any_work(field: str) -> None:
    vit = dataclasses.replace(TEACH, image_options={"model": "vit_tiny_patch16_224"}, size=224, small_size=224)
    vit.check()
    with pytest.raises(RecipeError, match=r"timm_image takes no frames of 100 pixels \(.*\); choose another size"):
        dataclasses.replace(vit, **{field: 100}).check()  # type: ignore[arg-type]
