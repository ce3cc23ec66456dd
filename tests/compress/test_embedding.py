"""A teacher is asked once: what was embedded is kept through a kill and through changes, row by row."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from compress import disk, embedding, installed
from compress.augment import Augment, augment_batch
from compress.data import open_dataset
from compress.draft import DatasetSpec, Draft, ModelFiles
from compress.embedding import ROWS
from compress.encode import Asker, encode_frames, encode_texts
from compress.models.dual_encoder import load_model
from compress.prepared import CACHE, prepared
from compress.steps.embed import Embed
from compress.store import Store, identity, open_store
from runtimes import RecipeError
from tests.checkpoints import save_clip
from tests.photos import folder_shop, picture, save
from tests.small_models import SHAPE, save_small, small_model
from tests.tiny import few_images

EMBED = Embed(views=2, phrases=40, held_out=10, words=50, batch=6)
MUTE = dataclasses.replace(SHAPE, answers=())


@pytest.fixture(autouse=True)
def _few_images() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return save_small(small_model(MUTE), tmp_path_factory.mktemp("teacher") / "files", MUTE)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return folder_shop(tmp_path / "shop", {"pear": 10, "plum": 10})


class Asked:
    """What the teacher is asked from now on. `frames`, `texts`: how many; `models`: how often it was loaded."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.frames = self.texts = self.models = 0
        self.stop_after = 10**9  # frames
        real = {name: getattr(embedding, name) for name in ("encode_frames", "encode_texts", "load_model")}

        def frames(model: Any, batch: Any, *rest: Any) -> torch.Tensor:
            if self.frames >= self.stop_after:
                raise KeyboardInterrupt
            self.frames += len(batch)
            return real["encode_frames"](model, batch, *rest)

        def texts(model: Any, tokenizer: Any, batch: Sequence[str], *rest: Any) -> torch.Tensor:
            self.texts += len(batch)
            return real["encode_texts"](model, tokenizer, batch, *rest)

        def load(files: ModelFiles) -> Any:
            self.models += 1
            return real["load_model"](files)

        for name, counted in (("encode_frames", frames), ("encode_texts", texts), ("load_model", load)):
            patch.setattr(embedding, name, counted)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def run(out: Path, root: Path, teacher: ModelFiles, step: Embed = EMBED, seed: int = 0) -> tuple[Draft, Store]:
    """Embed into a new folder of the run `out`."""
    out.mkdir(exist_ok=True)
    folder = out / f"embed-{len(list(out.glob('embed-*')))}"
    folder.mkdir()
    draft = Draft(out, folder, seed, DatasetSpec("photos", {"root": str(root)}), teacher=teacher)
    after = step.run(draft)
    corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
    assert after.store is not None
    return after, open_store(after.store, identity(teacher), corpus.fingerprint)


def same(one: Store, other: Store) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("train", "val", "texts"))


def test_rows_are_what_the_teacher_says(shop: Path, teacher: ModelFiles, tmp_path: Path) -> None:
    """Batch by batch, to the last bit."""
    step = dataclasses.replace(EMBED, train_size=40, augment=Augment(source=1.375, crop=0.6))
    draft, store = run(tmp_path / "run", shop, teacher, step)
    corpus = open_dataset("photos", {"root": str(shop)}).load()
    model, normal = load_model(teacher), (teacher.image.mean, teacher.image.std)
    frames = prepared(corpus.train.images, 44, draft.out, "read")
    for view, size in ((0, SHAPE.size), (1, 40)):
        batch = augment_batch(frames, np.arange(len(frames)), step.augment, size, store.header.seed, view)
        assert np.array_equal(store.train[view], encode_frames(model, batch, normal, 6).numpy())
    val = prepared(corpus.val.images, SHAPE.size, draft.out, "read")
    assert np.array_equal(store.val, encode_frames(model, val, normal, 6).numpy())
    tokenizer = Tokenizer.from_file(str(teacher.text.tokenizer))
    assert np.array_equal(store.texts, encode_texts(model, tokenizer, store.header.texts).numpy())
    vectors = 2 * len(frames) + len(val) + len(store.texts)
    assert draft.metrics["embed.vectors"] == vectors
    assert draft.embedded == {"new": vectors, "kept": 0}
    assert draft.metrics["embed.mbytes"] == pytest.approx(vectors * SHAPE.dim * 4 / 1e6)


def test_a_second_run_asks_nothing(shop: Path, teacher: ModelFiles, asked: Asked, tmp_path: Path) -> None:
    first, one = run(tmp_path / "run", shop, teacher)
    asked.frames = asked.texts = asked.models = 0
    again, two = run(tmp_path / "run", shop, teacher)
    assert (asked.frames, asked.texts, asked.models) == (0, 0, 0)
    assert same(one, two)
    assert again.embedded == {"new": 0, "kept": first.embedded["new"]}
    assert again.metrics == first.metrics


def test_an_interrupted_run_asks_nothing_twice(shop: Path, teacher: ModelFiles, asked: Asked, tmp_path: Path) -> None:
    _, whole = run(tmp_path / "whole", shop, teacher)
    total, asked.frames, asked.stop_after = asked.frames, 0, 13
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", shop, teacher)
    assert 13 <= asked.frames < total
    asked.stop_after = 10**9
    after, store = run(tmp_path / "run", shop, teacher)
    assert asked.frames == total
    assert same(store, whole), "to the last bit"
    assert after.embedded["kept"] > 0


def test_a_changed_image_is_embedded_again_and_no_other(
    shop: Path, teacher: ModelFiles, asked: Asked, tmp_path: Path
) -> None:
    _, before = run(tmp_path / "run", shop, teacher)
    corpus = open_dataset("photos", {"root": str(shop)}).load()
    place = 4
    save(corpus.train.images[place], picture(999))
    asked.frames = asked.texts = 0
    after, store = run(tmp_path / "run", shop, teacher)
    assert (asked.frames, asked.texts) == (2, 0), "once in each view"
    assert after.embedded["new"] == 2
    others = np.arange(len(corpus.train.images)) != place
    assert np.array_equal(store.train[:, others], before.train[:, others])
    assert not np.allclose(store.train[:, place], before.train[:, place], atol=1e-3)
    _, fresh = run(tmp_path / "fresh", shop, teacher)
    assert np.allclose(store.train, fresh.train, atol=1e-5), "alone in its batch: equal to rounding"
    left = sorted(path.stem.partition("-")[0] for path in (tmp_path / "run" / ROWS).glob("*.npy"))
    assert left == ["texts", "train", "val"], "what an earlier run had is gone"


def test_an_image_more_or_less_leaves_all_others(teacher: ModelFiles, asked: Asked, tmp_path: Path) -> None:
    """Wherever it is put in: those after it have another place."""
    root = folder_shop(tmp_path / "shop", {"train/pear": 8, "train/plum": 8, "val/pear": 4, "val/plum": 4})
    _, before = run(tmp_path / "run", root, teacher)
    save(root / "train" / "pear" / "0000.jpg", picture(999))
    asked.frames = 0
    _, store = run(tmp_path / "run", root, teacher)
    assert asked.frames == 2, "once in each view"
    corpus = open_dataset("photos", {"root": str(root)}).load()
    place = next(at for at, path in enumerate(corpus.train.images) if path.name == "0000.jpg")
    assert place < len(corpus.train.images) - 8
    assert np.array_equal(np.delete(store.train, place, axis=1), before.train)
    (root / "train" / "pear" / "0000.jpg").unlink()
    asked.frames = 0
    _, again = run(tmp_path / "run", root, teacher)
    assert (asked.frames, same(again, before)) == (0, True)


def test_another_seed_leaves_the_plain_view(shop: Path, teacher: ModelFiles, asked: Asked, tmp_path: Path) -> None:
    _, before = run(tmp_path / "run", shop, teacher)
    asked.frames = 0
    _, store = run(tmp_path / "run", shop, teacher, seed=1)
    assert asked.frames == store.train.shape[1]
    assert np.array_equal(store.train[0], before.train[0])
    assert not np.allclose(store.train[1], before.train[1], atol=1e-3)


def test_another_augmentation_or_one_more_phrase(shop: Path, teacher: ModelFiles, asked: Asked, tmp_path: Path) -> None:
    run(tmp_path / "run", shop, teacher)
    asked.frames = asked.texts = 0
    _, store = run(tmp_path / "run", shop, teacher, dataclasses.replace(EMBED, augment=Augment(tint=0.3), phrases=41))
    assert (asked.frames, asked.texts) == (store.train.shape[1], 1)


def test_another_teacher_is_asked_everything(shop: Path, teacher: ModelFiles, asked: Asked, tmp_path: Path) -> None:
    run(tmp_path / "run", shop, teacher)
    other = save_small(small_model(MUTE, seed=1), tmp_path / "other", MUTE)
    after, _ = run(tmp_path / "run", shop, other)
    assert after.embedded["kept"] == 0


def test_other_code_leaves_what_it_does_not_decide(
    shop: Path, teacher: ModelFiles, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another recipe, or another line in a step, makes steps run again; a teacher of the same code says the same."""
    run(tmp_path / "run", shop, teacher)
    real = installed.sources_hash

    def edited(root: Path, sources: Sequence[str] = installed.OURS) -> str:
        return "edited" if changed in sources else real(root, sources)

    monkeypatch.setattr(installed, "sources_hash", edited)
    try:
        for changed in ("compress", "sdk/resize.py"):
            for cached in (installed.made_by, installed.environment):
                cached.cache_clear()
            asked.frames = 0
            before = {path.name for path in (tmp_path / "run" / CACHE).iterdir()}
            again, store = run(tmp_path / "run", shop, teacher)
            after = {path.name for path in (tmp_path / "run" / CACHE).iterdir()}
            if changed == "compress":
                assert (asked.frames, again.embedded["new"], before) == (0, 0, after)
            else:
                assert asked.frames == 2 * store.train.shape[1] + len(store.val)
                assert not before & after, "what that code would not make again is gone"
                assert len(after) == len(before)
    finally:
        monkeypatch.undo()
        for cached in (installed.made_by, installed.environment):
            cached.cache_clear()


def test_half_the_bytes(shop: Path, teacher: ModelFiles, tmp_path: Path) -> None:
    _, whole = run(tmp_path / "run", shop, teacher)
    after, half = run(tmp_path / "run", shop, teacher, dataclasses.replace(EMBED, dtype="float16"))
    assert half.train.dtype == np.float16
    assert np.allclose(half.vectors(1, np.arange(5)), whole.train[1, :5], atol=5e-4)
    count = whole.val.size + whole.texts.size
    assert after.metrics["embed.mbytes"] == pytest.approx((whole.train.size * 2 + count * 4) / 1e6)


def test_a_damaged_store_is_named_and_only_what_is_damaged_made_again(
    shop: Path, teacher: ModelFiles, asked: Asked, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draft, store = run(tmp_path / "run", shop, teacher)
    assert draft.store is not None
    whole, header, file = np.array(store.train), store.header, draft.store / "train.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))  # a link: the disk has it once
    with pytest.raises(RecipeError, match=r"is damaged: train\.npy is not what the header says; remove the folder"):
        open_store(draft.store, header.teacher, header.data)
    asked.frames = 0
    with caplog.at_level(logging.WARNING):
        _, again = run(tmp_path / "run", shop, teacher)
    assert asked.frames == 1
    assert "is damaged: 1 of its rows are not what was written" in caplog.text
    assert np.allclose(again.train, whole, atol=1e-5)
    assert file.read_bytes() == bytes(data), "what another step holds is left alone"


def test_answers_are_kept_too(asked: Asked, tmp_path: Path) -> None:
    data = DatasetSpec("easy_vqa", {"val_images": 50})
    corpus = open_dataset(data.name, data.fields).load()
    shape = dataclasses.replace(SHAPE, answers=corpus.answers)
    files = save_small(small_model(shape), tmp_path / "teacher", shape)
    draft = Draft(tmp_path, tmp_path / "one", 0, data, teacher=files)
    step = dataclasses.replace(EMBED, batch=16)
    first = step.run(draft)
    assert first.store is not None
    store = open_store(first.store, identity(files), corpus.fingerprint)
    assert store.answers is not None
    frames = prepared(corpus.train.images, SHAPE.size, tmp_path, "read")
    asker = Asker(load_model(files), files, corpus.train.questions)
    for view in (0, 1):
        for at in range(0, len(frames), 16):
            chosen = np.arange(at, min(at + 16, len(frames)))
            places, logits = asker(
                augment_batch(frames, chosen, step.augment, SHAPE.size, store.header.seed, view), chosen
            )
            assert np.array_equal(store.answers[view][places], logits.numpy())
    assert first.metrics["embed.answers"] == store.answers.shape[0] * store.answers.shape[1]

    asked.frames = 0
    again = step.run(dataclasses.replace(draft, folder=tmp_path / "two"))
    assert (asked.frames, again.embedded["new"]) == (0, 0)
    file = next((tmp_path / ROWS).glob("answers-*.npy"))
    with file.open("r+b") as out:
        out.seek(-1, os.SEEK_END)
        out.write(b"\xff")
    before = (first.store / "train.npy").read_bytes()
    step.run(dataclasses.replace(draft, folder=tmp_path / "three"))
    assert asked.frames == 1, "the image that was asked about"
    assert (first.store / "train.npy").read_bytes() == before, "alone in its batch its vector has other bits"


def test_answers_that_are_beyond_float16_are_refused(tmp_path: Path) -> None:
    data = DatasetSpec("easy_vqa", {"val_images": 50})
    shape = dataclasses.replace(SHAPE, answers=open_dataset(data.name, data.fields).load().answers)
    model = small_model(shape)
    assert model.fusion is not None
    last = [module for module in model.fusion.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.bias.add_(1e6)
    files = save_small(model, tmp_path / "teacher", shape)
    step = dataclasses.replace(EMBED, dtype="float16")
    with pytest.raises(
        RecipeError, match=r"embed\.dtype is float16, and the teacher answers with 1e\+06; set it to fl"
    ):
        step.run(Draft(tmp_path, tmp_path / "one", 0, data, teacher=files))


def test_an_image_without_questions_is_asked_none(tmp_path: Path) -> None:
    corpus = open_dataset("easy_vqa", {"val_images": 50}).load()
    shape = dataclasses.replace(SHAPE, answers=corpus.answers)
    files = save_small(small_model(shape), tmp_path / "teacher", shape)
    about = [each for each in corpus.train.questions if each.image != 3]
    places, logits = Asker(load_model(files), files, about)(np.zeros((1, 32, 32, 3), np.uint8), np.array([3]))
    assert (places.shape, tuple(logits.shape)) == ((0,), (0, len(corpus.answers)))


def test_a_checkpoint_sees_what_its_own_resize_makes(shop: Path, tmp_path: Path) -> None:
    """To the last bit."""
    from compress.adopt import adopt
    from compress.checkpoints import family_of

    source = save_clip(tmp_path / "clip")
    files = adopt(family_of(source).load(source), tmp_path / "adopted", {}, "")
    _, store = run(tmp_path / "run", shop, files)
    corpus = open_dataset("photos", {"root": str(shop)}).load()
    spec = files.image
    assert (spec.resize, spec.crop) != ("area", "none")
    frames = prepared(corpus.train.images, spec.size, tmp_path / "run", "read", spec.resize, spec.crop)
    seen = encode_frames(load_model(files), frames, (spec.mean, spec.std), 6).numpy()
    assert np.array_equal(store.train[0], seen)


def test_a_disk_that_is_too_small_is_told_before_a_photo_is_read(
    shop: Path, teacher: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what these images take, and not for what is there."""
    teacher = dataclasses.replace(teacher, image=dataclasses.replace(teacher.image, resize="pil-bilinear"))
    step = dataclasses.replace(EMBED, augment=Augment(source=4.0))
    corpus = open_dataset("photos", {"root": str(shop)}).load()
    train, val = len(corpus.train.images), len(corpus.val.images)
    frames = 3 * (train * (128**2 + 32**2) + val * 32**2)
    needed = (frames + (2 * train + val) * 4 * SHAPE.dim) / 1e6
    free = SimpleNamespace(free=int(needed * 1e6) - 1000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: free)
    with pytest.raises(
        RecipeError,
        match=rf"what \[embed\] reads and stores needs {needed:.0f} MB of disk, .* has {needed:.0f} MB free; ",
    ):
        run(tmp_path / "run", shop, teacher, step)
    assert not (tmp_path / "run" / CACHE).exists()
    free.free += 2000
    run(tmp_path / "run", shop, teacher, step)
    free.free -= frames
    run(tmp_path / "run", shop, teacher, step)


def test_the_dtype_is_checked() -> None:
    with pytest.raises(RecipeError, match=r"embed\.dtype must be float32 or float16, got 'int8'"):
        Embed(dtype="int8")
