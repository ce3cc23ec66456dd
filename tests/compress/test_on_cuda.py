"""Nothing is left on the CPU when training goes to a GPU. There is none here: torch's fake tensors have shapes and
devices but no values, and every operation on two devices is an error, as it is on a GPU.

Three things are done outside, for no fake tensor can do them: weights are read from files, `Module.to` moves them once,
and NNCF places its quantizers (which is done on the CPU in any case). What asks for values ends there: which penalty a
projection gets. Pruning itself, the driver and the figures of a GPU are not seen here at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, unset_fake_temporarily

from compress import distilling, qat, teaching
from compress.augment import Augment
from compress.channels import gate_scores
from compress.data import Corpus, Label, open_dataset
from compress.distilling import Distilling
from compress.draft import DatasetSpec, Draft, ModelFiles
from compress.encode import Asker, class_vectors, encode_frames, encode_texts
from compress.fake_quantize import insert_quantizers
from compress.models.dual_encoder import DualEncoder, build, load_model, to_input
from compress.projection import fit_projection
from compress.schedule import warm_cosine
from compress.steps.distill import Distill
from compress.steps.teach import Teach
from compress.store import Header, Store
from compress.teaching import Lesson
from tests.photos import folder_shop
from tests.small_models import SHAPE, save_small, small_model
from tests.tiny import few_images

# Going back through a loss on "cuda" asks the driver; on "meta", which also is not the CPU, it asks nobody.
GPU, BACK = "cuda:0", "meta"
TEACH = Teach(
    image=SHAPE.image,
    image_options=SHAPE.image_options,
    text_options=SHAPE.text_options,
    size=SHAPE.size,
    dim=SHAPE.dim,
    max_length=SHAPE.max_length,
    width=SHAPE.width,
    fusion_options=SHAPE.fusion_options,
    batch=8,
    head_epochs=1,
    margin=0.5,
    label=1.0,
)
DISTILL = Distill(batch=8, phrases=4, questions=1, text_every=2, label=1.0)
NORMAL = ((0.5,) * 3, (0.2,) * 3)
Model = TypeVar("Model", bound=nn.Module)


@contextlib.contextmanager
def nowhere(device: str) -> Iterator[None]:
    """Tensors are fake, and made on `device` by default."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(device):
        yield


def moved(model: Model) -> Model:
    """A real model, its weights fake and on the default device; it stays there."""
    model.to(torch.get_default_device(), memory_format=torch.channels_last)
    model.to = lambda *_, **__: model  # type: ignore[assignment, method-assign, misc]
    return model


def really(make: Callable[..., DualEncoder]) -> Callable[..., DualEncoder]:
    """`make`, done with real tensors on the CPU, and what it made moved."""

    def made(*given: Any) -> DualEncoder:
        with unset_fake_temporarily(), torch.device("cpu"):
            model = make(*given)
        return moved(model)

    return made


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    monkeypatch.setattr(teaching, "build", really(small_model))
    monkeypatch.setattr(distilling, "load_model", really(load_model))


def draft_of(kind: str, folder: Path) -> tuple[Draft, Corpus]:
    """A run on photos without questions, or on easy-VQA, which has some."""
    if kind == "photos":
        root = folder_shop(folder / "shop", {"pear": 12, "plum": 12})
        data = DatasetSpec("photos", {"root": str(root)})
    else:
        data = DatasetSpec("easy_vqa", {"val_images": 50})
    return Draft(folder, folder, 0, data), open_dataset(data.name, data.fields).load()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], ModelFiles]:
    """Small models on disk, by what they answer."""
    top = tmp_path_factory.mktemp("models")
    shapes = [SHAPE, dataclasses.replace(SHAPE, answers=())]
    return {shape.answers: save_small(small_model(shape), top / str(n), shape) for n, shape in enumerate(shapes)}


def back(loss: Tensor, model: nn.Module, device: str) -> None:
    """The gradients of a loss lie where the weights do."""
    assert str(loss.device) == device
    assert loss.shape == ()
    if device == BACK:
        loss.backward()  # type: ignore[no-untyped-call]
        found = {str(each.grad.device) for each in model.parameters() if each.grad is not None}
        assert found == {device}


@pytest.mark.parametrize(
    ("kind", "mixup", "device"),
    [("photos", 0.0, GPU), ("photos", 0.4, BACK), ("easy_vqa", 0.0, GPU), ("easy_vqa", 0.0, BACK)],
)
def test_a_teacher_learns_on_one_device(kind: str, mixup: float, device: str, tmp_path: Path) -> None:
    draft, corpus = draft_of(kind, tmp_path)
    shape = dataclasses.replace(SHAPE, answers=corpus.answers)
    with nowhere(device):
        lesson = Lesson(dataclasses.replace(TEACH, mixup=mixup), shape, corpus, draft)
        back(lesson.loss(0), lesson.model, device)
        assert (lesson.head_steps > 0) == (kind == "easy_vqa")
        if lesson.head_steps:
            back(lesson.head_loss(0), lesson.head(), device)


def store_of(corpus: Corpus, answers: tuple[str, ...], size: int) -> Store:
    """What a teacher might have said: any numbers."""
    known = [wording for wordings in corpus.captions for wording in wordings]
    known += [prompt for label in corpus.labels for prompt in label.prompts]
    texts = (*dict.fromkeys(known), "a kiosk", "two jellyfish")
    header = Header("", corpus.fingerprint, 0, size, Augment(), 10.0, texts, 2, answers)

    def drawn(*shape: int) -> np.ndarray:
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)

    train, asked = corpus.train, (1, len(corpus.train.questions), len(answers))
    said = drawn(*asked) if answers else None
    return Store(
        header, drawn(1, len(train.images), SHAPE.dim), drawn(1, SHAPE.dim), drawn(len(texts), SHAPE.dim), said
    )


@pytest.mark.parametrize("device", [GPU, BACK])
@pytest.mark.parametrize("kind", ["photos", "easy_vqa"])
def test_a_student_learns_on_one_device(
    kind: str, device: str, files: dict[tuple[str, ...], ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, corpus = draft_of(kind, tmp_path)
    student = files[SHAPE.answers if corpus.answers else ()]
    store = store_of(corpus, corpus.answers, SHAPE.size)
    if corpus.answers:  # as many as the data has
        shape = dataclasses.replace(SHAPE, answers=corpus.answers)
        monkeypatch.setattr(distilling, "load_model", really(lambda _: small_model(shape)))
    with nowhere(device):
        task = Distilling(DISTILL, student, corpus, store, dataclasses.replace(draft, teacher=student))
        for step in range(DISTILL.text_every):  # with texts and questions, and without
            back(task.loss(step), task.model, device)


@pytest.fixture
def rounding() -> Iterator[None]:
    """What torch has for every device but "meta": the shapes that rounding gives."""
    library = torch.library.Library("aten", "IMPL", "Meta")

    def shapes(values: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        return torch.empty_like(values), torch.empty_like(values, dtype=torch.bool)

    for name in (
        "fake_quantize_per_channel_affine_cachemask",
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    ):
        library.impl(name, shapes)
    yield
    library._destroy()


@pytest.mark.usefixtures("rounding")
@pytest.mark.parametrize("device", [GPU, BACK])
def test_training_with_rounding_is_on_one_device(device: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, SHAPE.size, SHAPE.size, 3), np.uint8)
    side = small_model().image.requires_grad_(False)
    model = insert_quantizers(side, to_input(frames, *NORMAL)).requires_grad_(True)
    with nowhere(device):
        moved(side)
        moved(model)
        loss = qat._loss(model, side, torch.zeros(3, SHAPE.dim), 10.0)
        back(loss((to_input(frames, *NORMAL), torch.zeros(8, SHAPE.dim))), model, device)


def test_vectors_are_made_on_the_device(files: dict[tuple[str, ...], ModelFiles], tmp_path: Path) -> None:
    _, corpus = draft_of("easy_vqa", tmp_path)
    shape = dataclasses.replace(SHAPE, answers=corpus.answers)
    told = files[SHAPE.answers]
    assert told.fusion is not None
    told = dataclasses.replace(told, fusion=dataclasses.replace(told.fusion, answers=corpus.answers))
    tokenizer = Tokenizer.from_file(str(told.text.tokenizer))
    frames = np.zeros((5, SHAPE.size, SHAPE.size, 3), np.uint8)
    with nowhere(GPU):
        model = really(small_model)(shape)
        vectors = encode_frames(model, frames, NORMAL, batch=2)
        texts = encode_texts(model, tokenizer, ["a kiosk", "two green jellyfish"])
        classes = class_vectors(model, tokenizer, [Label("kiosk", ("a kiosk", "the kiosk"))])
        asked, logits = Asker(model, told, corpus.train.questions)(frames, np.arange(5))
    assert {str(made.device) for made in (vectors, texts, classes, logits)} == {GPU}
    assert [*logits.shape] == [len(asked), len(corpus.answers)]


def test_importance_is_measured_on_the_device() -> None:
    with nowhere(BACK):
        side = really(small_model)(SHAPE).image
        scores = gate_scores(side, [torch.zeros(4, 3, SHAPE.size, SHAPE.size)] * 2)
    assert scores
    assert {str(rows.device) for rows in scores.values()} == {BACK}


def test_a_projection_is_fitted_on_the_device_until_errors_are_compared() -> None:
    with nowhere(GPU):
        side = really(small_model)(SHAPE).image
        pooled, wanted = torch.zeros(9, int(side.tower.width)), torch.zeros(9, SHAPE.dim)  # type: ignore[arg-type]
        with pytest.raises(DataDependentOutputException):
            fit_projection(side, pooled, wanted)


def test_one_kernel_updates_all_weights() -> None:
    with nowhere(GPU):
        layer = nn.Linear(3, 2)
        optimizer, schedule = warm_cosine([{"params": list(layer.parameters()), "lr": 0.1}], 3, 0.5, 0.0)
        for weight in layer.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        schedule.step()
    assert all(group["fused"] for group in optimizer.param_groups)
    assert str(optimizer.state[layer.weight]["step"].device) == GPU


def test_a_tensor_that_was_left_behind_is_found() -> None:
    with nowhere(GPU), pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        _ = torch.zeros(3) * torch.from_numpy(np.zeros(3, np.float32))


def test_new_models_go_to_the_default_device(files: dict[tuple[str, ...], ModelFiles]) -> None:
    with torch.device("meta"):
        for model in (build(SHAPE), load_model(files[SHAPE.answers])):
            assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
