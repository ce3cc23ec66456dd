"""What the ranks of tests/compress/test_processes.py do: `torchrun --nproc_per_node 2 tests/ranks.py CASE FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress import distilling, train
from compress.augment import Augment
from compress.command import exit_code
from compress.data import Corpus, open_dataset
from compress.data.shards import Shards
from compress.distilling import Distilling
from compress.draft import DatasetSpec, Draft
from compress.losses import cosines, multi_positive_info_nce
from compress.processes import agree, everywhere, is_main, join, leave, main_first, on_main, rank, world
from compress.progress import bar
from compress.recipe import Recipe
from compress.samples import Part, Sample
from compress.shares import gather, mean_gradients, mean_value, share, spread
from compress.steps import check_steps, run_steps
from compress.steps.distill import Distill
from compress.store import Header, Store
from runtimes import RecipeError
from tests.small_models import SHAPE, save_small, small_model
from tests.tiny import few_images, tiny_recipe

DISTILL = Distill(batch=16, phrases=5, questions=2, text_every=2, label=1.0, interactive=0.5, contrast=1.0)


def contrast() -> tuple[Tensor, nn.Linear, nn.Linear]:
    """InfoNCE of 8 pairs, and its two layers: what is before the gather, and what comes after it."""
    drawn = torch.Generator().manual_seed(0)
    pixels, texts = torch.randn(8, 6, generator=drawn), torch.randn(5, 4, generator=drawn)
    torch.manual_seed(1)
    tower, top = nn.Linear(6, 6), nn.Linear(6, 4)
    seen = gather(tower(pixels[torch.as_tensor(share(np.arange(8)))]))
    matches = torch.randint(-1, 2, (8, 5), generator=drawn)
    return multi_positive_info_nce(10 * cosines(top(seen.tanh()), texts), matches), tower, top


def gradients(folder: Path) -> dict[str, Any]:
    """Of all the losses of a student over a batch, with texts and questions (step 0) and without (step 1).
    BatchNorm is frozen: it would see a share only."""
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        corpus = open_dataset("easy_vqa", {"val_images": 50}).load()
    own = folder / f"model-{rank()}-of-{world()}"
    shape = SHAPE.__class__(**{**SHAPE.__dict__, "answers": corpus.answers})
    files = save_small(small_model(shape), own, shape)
    draft = Draft(folder, folder, 0, DatasetSpec("easy_vqa", {"val_images": 50}), teacher=files)
    task = main_first(lambda: Distilling(DISTILL, files, corpus, store_of(corpus), draft))
    found: dict[str, Any] = {}
    for step in range(2):
        task.model.train()
        for part in task.model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        task.model.zero_grad()
        loss = task.loss(step)
        loss.backward()  # type: ignore[no-untyped-call]
        mean_gradients(task.model.parameters())
        grads = {name: weight.grad for name, weight in task.model.named_parameters() if weight.grad is not None}
        found[str(step)] = {"loss": mean_value(loss), "grads": grads}
    return found


def store_of(corpus: Corpus) -> Store:
    """What a teacher might have said: any numbers."""
    known = [wording for wordings in corpus.captions for wording in wordings]
    known += [prompt for label in corpus.labels for prompt in label.prompts]
    phrases = tuple(f"the {word} thing" for word in ("red", "old", "large", "wet", "new", "blue", "odd"))
    texts = (*dict.fromkeys(known), *phrases, "a kiosk", "two jellyfish")
    header = Header("", corpus.fingerprint, 0, SHAPE.size, Augment(), 10.0, texts, 2, corpus.answers)
    rng, train_split = np.random.default_rng(0), corpus.train
    shapes = [(1, len(train_split.images), SHAPE.dim), (1, SHAPE.dim), (len(texts), SHAPE.dim)]
    shapes.append((1, len(train_split.questions), len(corpus.answers)))
    return Store(header, *(rng.normal(size=shape).astype(np.float32) for shape in shapes))


def parts(folder: Path) -> dict[str, Any]:
    """One call of each function, and what each error says."""
    said: dict[str, Any] = {"rank": rank(), "world": world(), "share": share([4, 5, 6, 7])}
    said["spread"] = spread([1, 2, 3], lambda rows: torch.tensor(rows) * 10.0).tolist()
    said["main"] = on_main(lambda: f"by {rank()}")
    written = folder / "written"
    said["first"] = main_first(lambda: written.exists() or written.touch() or False)
    said["value"] = mean_value(torch.tensor(1.0 + rank()))

    def wrong() -> None:
        raise RecipeError(f"wrong on {rank()}")

    def late() -> None:
        if rank() == 1:
            raise RecipeError("wrong on 1")

    calls = {"on_main": lambda: on_main(wrong), "main_first": lambda: main_first(late)}
    calls["everywhere"] = lambda: everywhere(late)
    calls["agree"] = lambda: agree(RecipeError("found by 1") if rank() else None)
    calls["batch"] = lambda: Distill(batch=15).check_after([])
    for name, call in calls.items():
        with pytest.raises(RecipeError) as raised:
            call()
        said[name] = str(raised.value)
    with bar("silence", 2) as tick:
        tick("")
    loss, tower, top = contrast()
    loss.backward()  # type: ignore[no-untyped-call]
    mean_gradients([*tower.parameters(), *top.parameters()])
    torch.save(
        {"loss": loss.item(), "tower": tower.weight.grad, "top": top.weight.grad}, folder / f"contrast-{rank()}.pt"
    )
    torch.save(gradients(folder), folder / f"gradients-{rank()}.pt")
    return said


def tiny(folder: Path, *overrides: str, stop: int | None = None) -> dict[str, Any]:
    """The tiny recipe, whole; rank 1 fails in step `stop` of distilling."""
    whole = Distilling.loss

    def loss(task: Distilling, step: int) -> Tensor:
        if step == stop and rank() == 1:
            raise RecipeError("rank 1 has had enough")
        return whole(task, step)

    ran: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        patch.setattr(distilling.Distilling, "loss", loss)
        patch.setattr(train, "SHARE", float("inf"))
        recipe = everywhere(lambda: tiny_recipe(folder / str(rank()), *overrides))
        draft = run_steps(recipe, folder / "out", True, lambda done: None if done.skipped else ran.append(done.name))
    return {"ran": ran, "draft": draft.to_json()}


def shards(folder: Path) -> dict[str, Any]:
    """A run without steps on the shards in `folder`: which of them this rank read, and what it then sees."""
    read: list[str] = []
    whole = Shards.read

    def read_one(dataset: Shards, part: Part) -> Iterator[Sample]:
        read.append(Path(part.name).name)
        return whole(dataset, part)

    fields = {"root": str(folder / "shop-*.tar"), "cache": str(folder / "cache")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shards, "read", read_one)
        recipe = Recipe("shop", "", 0, 1, DatasetSpec("shards", fields), ())
        everywhere(lambda: check_steps(recipe))
        run_steps(recipe, folder / "out")
    dataset = open_dataset("shards", fields)
    return {"read": read, "data": dataset.fingerprint(), "photos": dataset.count()}  # type: ignore[attr-defined]


def main(case: str, place: str) -> None:
    """Each rank writes what it saw into FOLDER/CASE-RANK.json."""
    folder = Path(place)
    join("cpu")
    (folder / str(rank())).mkdir(exist_ok=True)
    if case == "parts":
        said = parts(folder)
    elif case == "shards":
        said = shards(folder)
    else:
        said = tiny(folder, stop=int(case.removeprefix("stop")) if case.startswith("stop") else None)
    (folder / f"{case}-{rank()}.json").write_text(json.dumps(said))
    if is_main():
        print("done")
    leave()


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(*sys.argv[1:]), "go on"))
