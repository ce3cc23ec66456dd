"""A student's epoch from the teacher's store beside the same epoch with hard labels only."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.stats import median_interval
from compress.data import Corpus, open_dataset
from compress.device import default_device
from compress.distilling import Distilling
from compress.draft import Draft, ModelFiles
from compress.questions import Pairs
from compress.schedule import Optimizer
from compress.store import Store, identity, open_store
from compress.train import repeatable

if TYPE_CHECKING:
    from compress.steps.distill import Distill

# Weights of what needs a teacher.
SOFT: dict[str, Any] = dict.fromkeys(("feature", "text_feature", "affinity", "interactive"), 0.0)
Tasks = dict[str, tuple[Distilling, Optimizer]]


class HardLabels(Distilling):
    """The same student on the same images, views, captions and questions; what is true of them stands in the place of
    what the teacher said. Its vectors of captions and labels stay, as a classifier that is not trained."""

    def __init__(self, asked: "Distill", student: ModelFiles, corpus: Corpus, store: Store, draft: Draft) -> None:
        asked = dataclasses.replace(asked, **SOFT, contrast=asked.contrast or 1.0)
        super().__init__(asked, student, corpus, store, draft)

    def _wanted(self, view: int, chosen: NDArray[np.int64]) -> Tensor:
        """Nothing is read from the store."""
        return torch.zeros(0)

    def _answer_loss(self, logits: Tensor, pairs: Pairs, view: int) -> Tensor:
        """Cross-entropy of the right answers."""
        return F.cross_entropy(logits, pairs.truth)


class SameTexts(HardLabels):
    """On the same everyday phrases too: true of no image."""

    def __init__(self, asked: "Distill", student: ModelFiles, corpus: Corpus, store: Store, draft: Draft) -> None:
        super().__init__(asked, student, corpus, store, draft)
        self._matches = F.pad(self._matches, (0, asked.phrases))


KINDS: dict[str, type[Distilling]] = {"store": Distilling, "labels": SameTexts, "no_phrases": HardLabels}


def epoch_cost(asked: "Distill", draft: Draft, epochs: int, most: int = 0) -> dict[str, Any]:
    """Time KINDS in turn for `epochs` epochs, of each the first `most` steps (0: all), in whole stretches of
    `text_every`: distilling from the store, hard labels with the same texts, hard labels alone. Returns

    seconds      of a whole epoch, by kind
    ratio        store / labels, and store / no_phrases: the median over stretches of `text_every` steps, with its 95 %
                 interval
    steps        how many of each were timed
    other_calls  how often a network was called that is not one of the students, from the start to the end of a first
                 stretch, which is not timed

    Raises RecipeError for a store that cannot be used.
    """
    with default_device(draft.device), repeatable():
        with calls() as called:
            tasks = _tasks(dataclasses.replace(asked, epochs=epochs), draft)
            for task, updates in tasks.values():
                task.model.train()
                for step in range(asked.text_every + 1):
                    _step(task, updates, step)
        rounds = tasks["store"][0].steps // epochs
        timed = min(rounds, most or rounds)
        stretch = min(asked.text_every, timed)  # one of its steps has texts
        steps = [epoch * rounds + at for epoch in range(epochs) for at in range(timed - timed % stretch)]
        times = np.array([_in_turn(tasks, step) for step in steps])
    students = {id(module) for task, _ in tasks.values() for module in task.model.modules()}
    spent = times.reshape(-1, stretch, len(tasks)).sum(axis=1)
    ratios = {name: median_interval(spent[:, 0] / spent[:, at]) for at, name in enumerate(tasks) if at}
    return {
        "seconds": dict(zip(tasks, (times.mean(axis=0) * rounds).tolist(), strict=True)),
        "ratio": {name: dataclasses.asdict(ratio) for name, ratio in ratios.items()},
        "steps": len(steps),
        "other_calls": sum(id(module) not in students for module in called),
    }


@contextmanager
def calls() -> Iterator[list[nn.Module]]:
    """Every network, and part of one, that is called within it, once for each call."""
    called: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_pre_hook(lambda module, _: called.append(module))
    try:
        yield called
    finally:
        handle.remove()


def _tasks(asked: "Distill", draft: Draft) -> Tasks:
    corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
    teacher, student = draft.need("teacher", "distill"), draft.need("student", "distill")
    store = open_store(draft.need("store", "distill"), identity(teacher), corpus.fingerprint)
    made = {name: kind(asked, student, corpus, store, draft) for name, kind in KINDS.items()}
    return {name: (task, task.optimizer()) for name, task in made.items()}


def _in_turn(tasks: Tasks, step: int) -> list[float]:
    """Seconds of one step of each, in their order; who begins changes, for the next ones find warm caches."""
    names = list(tasks)
    begin = step % len(names)
    spent = {name: _step(*tasks[name], step) for name in (*names[begin:], *names[:begin])}
    return [spent[name] for name in names]


def _step(task: Distilling, optimizer: Optimizer, step: int) -> float:
    """Seconds of a step as compress/train.py takes it."""
    began = time.perf_counter()
    updates, schedule = optimizer
    loss = task.loss(step)
    loss.item()
    updates.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    updates.step()
    schedule.step()
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
