"""Where torch trains: on the CPU or, by `--set device=cuda`, on a GPU.

Steps that train or embed go there whole, through `on_device`: what they make is made on torch's default device. Graphs
are exported, quantized and measured on the CPU, wherever the weights were trained.
"""

import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from compress.draft import Draft
from runtimes import RecipeError, Unavailable

CPU = "cpu"

Run = TypeVar("Run", bound=Callable[..., Draft])


def check_device_name(device: str) -> None:
    """Raises RecipeError for what is no device; imports no torch."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise RecipeError(f"device must be cpu, cuda, or cuda:N for one of several GPUs, got {device!r}")


def check_device(device: str) -> None:
    """Raises Unavailable for a GPU that torch does not find on this machine."""
    if device == CPU:
        return
    import torch

    if not torch.cuda.is_available():
        why = "is built without CUDA" if torch.version.cuda is None else "finds no GPU, or no driver of one"
        raise Unavailable(
            f"device is {device}, and torch {torch.__version__} {why}; install a GPU's driver and a build of torch for "
            "it (https://pytorch.org/get-started/locally), or leave device out to train on the CPU"
        )
    found = torch.cuda.device_count()
    if int(device.partition(":")[2] or 0) >= found:
        names = ", ".join(f"cuda:{number}" for number in range(found))
        raise Unavailable(f"device is {device}, and torch finds {found} of them here; choose from: {names}")


def kind(device: str) -> str:
    """What decides the bits of a result: "cpu" or "cuda", whichever of several GPUs it is."""
    return device.partition(":")[0]


@contextmanager
def default_device(device: str) -> Iterator[None]:
    """Within it, torch makes tensors and models on `device`."""
    if device == CPU:
        yield
        return
    # cuBLAS reads it when CUDA starts; without it, sums differ from run to run (see compress/train.py).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    with torch.device(device):
        yield


def on_device(run: Run) -> Run:
    """A step's `run`, with the draft's device as torch's default."""

    @functools.wraps(run)
    def placed(step: Any, draft: Draft) -> Draft:
        with default_device(draft.device):
            return run(step, draft)

    return cast(Run, placed)
