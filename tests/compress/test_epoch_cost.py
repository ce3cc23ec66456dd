"""An epoch from the store beside one with hard labels: what is compared, what is counted, what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress import distilling, hard_labels
from compress.data import open_dataset
from compress.distill import claim
from compress.distilling import Distilling
from compress.draft import Draft, ModelFiles
from compress.epoch_cost import main, ready
from compress.hard_labels import HardLabels, SameTexts, calls
from compress.models.dual_encoder import load_model
from compress.recipe import load_recipe
from compress.steps import run_steps
from compress.steps.distill import Distill
from compress.store import identity, open_store
from runtimes import RecipeError
from tests.tiny import few_images, tiny_recipe


@pytest.fixture(autouse=True, scope="module")
def _few_images() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        yield


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Draft]:
    """A recipe's file, the folder of its run, which has come to [prune], and the draft after that."""
    folder = tmp_path_factory.mktemp("cost")
    recipe = tiny_recipe(folder, "distill.label=1")
    run = folder / "run"
    claim(run, recipe)
    draft = run_steps(dataclasses.replace(recipe, steps=recipe.steps[:3]), run)
    return folder / "tiny.toml", run, draft


def distill_of(pruned: tuple[Path, Path, Draft], *sets: str) -> tuple[Distill, Draft]:
    return ready(load_recipe(pruned[0], sets), pruned[1])


def task_of(kind: type[Distilling], asked: Distill, draft: Draft) -> Distilling:
    corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
    store = open_store(draft.need("store", "test"), identity(draft.need("teacher", "test")), corpus.fingerprint)
    return kind(asked, draft.need("student", "test"), corpus, store, draft)


def test_the_teacher_is_never_called_in_training(
    pruned: tuple[Path, Path, Draft], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is called in the whole step, in training and in measuring, is a part of the one model that was loaded,
    which is the student."""
    asked, draft = distill_of(pruned)
    loaded: list[tuple[ModelFiles, torch.nn.Module]] = []

    def load(files: ModelFiles) -> Any:
        loaded.append((files, load_model(files)))
        return loaded[-1][1]

    monkeypatch.setattr(distilling, "load_model", load)
    folder = draft.out / "distilled"
    folder.mkdir()
    with calls() as called:
        asked.run(dataclasses.replace(draft, folder=folder))
    assert [files.image.weights for files, _ in loaded] == [draft.need("student", "test").image.weights]
    student = {id(module) for module in loaded[0][1].modules()}
    assert called
    assert sum(id(module) not in student for module in called) == 0


def test_a_network_beside_the_student_is_counted(pruned: tuple[Path, Path, Draft]) -> None:
    _, draft = distill_of(pruned)
    teacher = load_model(draft.need("teacher", "test"))
    with calls() as called:
        teacher.encode_image(torch.zeros(2, 3, 32, 32))
    assert teacher.image.tower in called
    with calls() as none:
        pass
    teacher.encode_image(torch.zeros(2, 3, 32, 32))
    assert not none, "it listens no longer"


def test_hard_labels_ask_the_store_for_nothing(pruned: tuple[Path, Path, Draft]) -> None:
    """And are a loss of the same student: a store that says something else changes nothing."""
    asked, draft = distill_of(pruned)
    losses = {}
    for kind in (Distilling, HardLabels, SameTexts):
        for wrong in (0, 1):
            torch.manual_seed(0)
            task = task_of(kind, asked, draft)
            store = task._store
            if wrong and store.answers is not None:
                task._store = dataclasses.replace(store, train=-store.train, answers=-store.answers)
            losses[kind, wrong] = [task.loss(step).item() for step in range(2)]
    assert losses[HardLabels, 0] == losses[HardLabels, 1]
    assert losses[SameTexts, 0] == losses[SameTexts, 1]
    assert losses[SameTexts, 0][0] > losses[HardLabels, 0][0], "phrases are wrong texts for every image"
    assert losses[SameTexts, 0][1] == losses[HardLabels, 0][1], "in a step without texts there are none"
    assert all(one != two for one, two in zip(losses[Distilling, 0], losses[Distilling, 1], strict=True))
    hard = task_of(HardLabels, asked, draft)
    hard.loss(0).backward()  # type: ignore[no-untyped-call]
    assert not [name for name, each in hard.model.named_parameters() if each.requires_grad and each.grad is None]


def test_the_interactive_loss_is_one_more_term(pruned: tuple[Path, Path, Draft]) -> None:
    """In both kinds of steps; in those without texts the student's captions are the teacher's."""
    from compress.losses import cosines, interactive_loss

    asked, draft = distill_of(pruned)
    only = dataclasses.replace(
        asked, feature=0.0, text_feature=0.0, affinity=0.0, contrast=0.0, answer=0.0, label=0.0, interactive=2.0
    )
    task = task_of(Distilling, only, draft)
    images, texts = (torch.randn(4, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    teachers = torch.randn(texts.shape[0], 16, generator=torch.Generator().manual_seed(2))
    task._matches = torch.eye(4)
    scale, wanted = task._store.header.logit_scale, images.flip(0)
    loss = task._match(images, wanted, (texts, teachers), np.arange(4))
    crossed = scale * cosines(images, teachers), scale * cosines(wanted, texts)
    assert loss.item() == pytest.approx(2 * interactive_loss(*crossed, torch.eye(4)).item(), rel=1e-6)
    assert Distill().interactive == 0
    with pytest.raises(RecipeError, match="distill: the weights of losses must not be negative"):
        Distill(interactive=-1.0)


def test_both_are_timed_in_turn(pruned: tuple[Path, Path, Draft], tmp_path: Path, capsys: Any) -> None:
    recipe, run, _ = pruned
    arguments = [str(recipe), "--from", str(run), "--steps", "3", "--epochs", "2", "--out", str(tmp_path / "cost.json")]
    assert main([*arguments, "--require", "100"]) == 0
    said = capsys.readouterr().out
    assert "an epoch from the store: " in said
    assert "with hard labels, the same images and texts: " in said
    assert "networks called that are not the student: 0" in said
    found = json.loads((tmp_path / "cost.json").read_text(encoding="utf-8"))
    assert found["steps"] == 4, "of three steps an epoch, those of a whole stretch"
    assert found["other_calls"] == 0
    assert set(found["ratio"]) == {"labels", "no_phrases"} == set(found["seconds"]) - {"store"}
    for ratio in found["ratio"].values():
        assert ratio["n"] == 2, "stretches of text_every steps"
        assert 0.1 < ratio["low"] <= ratio["value"] <= ratio["high"] < 10
    assert min(found["seconds"].values()) > 0


def test_a_bar_that_is_missed_is_told(
    pruned: tuple[Path, Path, Draft], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratio = {"value": 1.2, "low": 1.1, "high": 1.3, "n": 9}
    seconds = {"store": 1.2, "labels": 1.0, "no_phrases": 1.0}
    found = {"seconds": seconds, "ratio": {"labels": ratio, "no_phrases": ratio}, "steps": 9, "other_calls": 0}
    monkeypatch.setattr(hard_labels, "epoch_cost", lambda *_: found)
    arguments = [str(pruned[0]), "--from", str(pruned[1])]
    assert main([*arguments, "--require", "1.2"]) == 0
    assert main([*arguments, "--require", "1.10"]) == 1
    assert "--require 1.1 was missed: the store costs 1.200 times the epoch with the same" in capsys.readouterr().err


def test_it_wants_a_run_that_has_come_so_far(pruned: tuple[Path, Path, Draft], tmp_path: Path, capsys: Any) -> None:
    recipe, run, _ = pruned
    whole = load_recipe(recipe)
    with pytest.raises(RecipeError, match=r"the recipe tiny has no \[distill\] after other steps: there is no epoch"):
        ready(dataclasses.replace(whole, steps=whole.steps[:3]), run)
    claim(tmp_path / "other", whole)
    with pytest.raises(RecipeError, match=r"has no finished \[prune\], or not all of its files as they were made"):
        ready(whole, tmp_path / "other")
    assert main([str(recipe), "--from", str(tmp_path / "nothing")]) == 2
    assert "holds no run of compress.distill" in capsys.readouterr().err
    assert main([str(recipe), "--from", str(run), "--epochs", "0"]) == 2
    assert "--epochs must be at least 1 and --steps at least 0, got 0 and 0" in capsys.readouterr().err
