"""The one training loop. It can be killed at any moment and goes on where its last checkpoint was.

A resumed run computes exactly what an uninterrupted one would have, and a second run what the first did. So whatever a
loss draws comes from (seed, step) or (seed, epoch), or from torch's own generator (dropout), whose state is in the
checkpoint; never from a generator of the caller's that runs on. And sums are added up in one order, see `repeatable`.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from compress.average import Average
from compress.processes import gathered, is_main
from compress.progress import bar
from compress.shares import mean_gradients, mean_value
from runtimes import RecipeError

EVERY = 10.0  # seconds between checkpoints: what a killed run may lose
EVERY_VARIABLE = "PUPIL_CHECKPOINT_SECONDS"
# Saving may cost this share of the time: 25 M trained parameters are 300 MB, and took 0.5 to 1.2 s here.
SHARE = 0.05


@dataclass
class State:
    """What a training changes, all of it in its checkpoint. `spent`: the seconds that its `timed` steps took, without
    saving; those after the last checkpoint of a killed run were taken for nothing, and are not among them."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    average: Average | None
    spent: float = 0.0
    timed: int = 0


def train(
    title: str,
    model: nn.Module,
    optimizer: tuple[Optimizer, LRScheduler],
    steps: int,
    loss_of: Callable[[int], Tensor],
    checkpoint: Path,
    average: float = 0.0,
) -> float:
    """Train `model` for `steps` steps; `loss_of(step)` is the loss of that step's batch, a scalar. Returns the mean
    seconds of all steps, those before a resume among them, checkpoints not counted.

    `checkpoint`: the file that holds the state; training goes on from it when it is there. `title` is what the bar
    says. Frozen parameters (`requires_grad` off) are not kept: the caller builds them again. Leaves the model in eval
    mode, with the average of its weights over the steps if `average` (see compress/average.py) is above 0. Of several
    processes each takes its share of a step (compress/shares.py), and the main one keeps the state, which all go on
    from. Raises RecipeError when a loss is not finite, or the checkpoint is damaged or of another model; OSError when
    the disk is full.
    """
    updates, schedule = optimizer
    pause = _seconds_between()
    state = State(model, updates, schedule, Average(_trained(model), average) if average else None)
    done = _restore(checkpoint, state, steps)
    if len(set(gathered(done))) > 1:  # also a barrier: nothing is written before all have read
        raise RecipeError(f"the ranks find different checkpoints at {checkpoint}; give them one --out on a shared disk")
    model.train()
    saved = time.monotonic()
    with repeatable(), bar(title, steps, done) as tick:
        for step in range(done, steps):
            began = time.perf_counter()
            loss = loss_of(step)
            value = mean_value(loss)
            if not math.isfinite(value):
                raise RecipeError(f"{title}: the loss of step {step} is {value}; lower the learning rate")
            updates.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            mean_gradients(model.parameters())
            updates.step()
            schedule.step()
            if state.average is not None:
                state.average.update(_trained(model), step)
            tick(f"loss {value:.3f}")
            # On a GPU what is left of a step is waited for in the next one, at its loss.
            state.spent, state.timed = state.spent + time.perf_counter() - began, state.timed + 1
            # The last one too: what comes after training in the same step of the recipe may be killed as well.
            if is_main() and (time.monotonic() - saved >= pause or step + 1 == steps):
                started = time.monotonic()
                _save(checkpoint, state, step + 1)
                saved = time.monotonic()
                pause = max(pause, (saved - started) / SHARE)
    if state.average is not None:
        model.load_state_dict(state.average.tensors, strict=False)
    model.eval()
    return state.spent / state.timed


@contextmanager
def repeatable() -> Iterator[None]:
    """Within it, torch takes algorithms that give the same bits each time.

    Without it the gradient of a row that is gathered twice is added up by whichever thread comes first: two runs of
    one seed ended with different weights. An algorithm that has no such twin warns. On a GPU it also takes what
    compress/device.py sets before CUDA starts.
    """
    mode = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic  # its attribute is set by a property that mypy does not see
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # else every new tensor is written once more
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = fill


def _seconds_between() -> float:
    text = os.environ.get(EVERY_VARIABLE, str(EVERY))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise RecipeError(f"{EVERY_VARIABLE} must be a number of seconds, got {text!r}; unset it")
    return seconds


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters that are not frozen, and buffers (BatchNorm's statistics)."""
    frozen = {name for name, weights in model.named_parameters(remove_duplicate=False) if not weights.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def _generators(model: nn.Module) -> list[Tensor]:
    """The states of torch's generators: the CPU's and, for a model on a GPU, that of the GPU."""
    place = next(model.parameters()).device
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(place)] if place.type == "cuda" else [])]


def _save(file: Path, state: State, step: int) -> None:
    table = {
        "step": step,
        "model": _trained(state.model),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "average": state.average.tensors if state.average is not None else {},
        "generators": _generators(state.model),
        "spent": state.spent,
        "timed": state.timed,
    }
    building = file.with_suffix(".tmp")
    with building.open("wb") as out:
        try:
            torch.save(table, out)
        except RuntimeError as error:
            # What breaks the writing (a full disk, Ctrl-C) comes out of torch as a broken zip file.
            if isinstance(error.__context__, OSError | KeyboardInterrupt):
                raise error.__context__ from None
            raise
        out.flush()
        os.fsync(out.fileno())
    building.replace(file)


def _restore(file: Path, state: State, steps: int) -> int:
    """Load the state and return how many steps it has seen; 0 when there is none."""
    if not file.exists():
        return 0
    try:
        table: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        wanted = _trained(state.model).keys()
        averaged = wanted if state.average is not None else set()
        if table["model"].keys() != wanted or table["average"].keys() != averaged or not 0 < table["step"] <= steps:
            raise ValueError("it is of another model or another number of steps")
        state.model.load_state_dict(table["model"], strict=False)  # frozen weights are not in it
        state.optimizer.load_state_dict(table["optimizer"])
        state.schedule.load_state_dict(table["schedule"])
        if state.average is not None:
            state.average.restore(table["average"])
        state.spent, state.timed = float(table["spent"]), int(table["timed"])
        torch.set_rng_state(table["generators"][0])
        for generator in table["generators"][1:]:
            torch.cuda.set_rng_state(generator, next(state.model.parameters()).device)
        return int(table["step"])
    except Exception as error:  # whatever a damaged file makes torch raise
        raise RecipeError(f"the checkpoint {file} cannot be used ({error}); remove it and run again") from error
