"""The processes of `torchrun --nproc_per_node N -m compress.distill`, each with a rank from 0; without it there is one.

Rank 0 is the main process: it holds the folder, writes and prints. What fails on one rank ends all of them: an error in
what is done for all (`on_main`, `main_first`, `agree`) is raised everywhere, and elsewhere a rank that ends closes its
connections, at which the others end too, or torchrun ends them. It is told once, by the rank that was first to fail.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

from compress.device import CPU
from runtimes import PupilError, RecipeError

# Export, quantizing and the gate run on the main process, and the others wait for it: no limit that a step could meet.
# A process that died is not waited for: its connections are closed.
PATIENCE = timedelta(days=30)
_FAILED = "pupil failed"

Made = TypeVar("Made")


@dataclass
class _Joined:
    """`control`: gloo, also where tensors go by NCCL, so that who waits for the main process keeps no GPU busy.
    `alone`: the main process does what the others wait for."""

    rank: int = 0
    world: int = 1
    control: Any = None
    alone: bool = False


_joined = _Joined()


def rank() -> int:
    """0 for the main process."""
    return _joined.rank


def world() -> int:
    """The world size: how many processes run this together. 1 before `join`, and in what the main one does alone: a
    training there is one like any other."""
    return 1 if _joined.alone else _joined.world


def is_main() -> bool:
    return _joined.rank == 0


def join(device: str) -> None:
    """Meet the other processes that torchrun started; `device`: where they train, "cuda" being a GPU for each.

    Does nothing for a process alone. Raises RecipeError for one GPU that all would share.
    """
    if _launched() == 1 or world() > 1:
        return
    if ":" in device:
        raise RecipeError(f"device is {device}, and {_launched()} processes would share it; set it to cuda, a GPU each")
    import torch.distributed as dist
    from accelerate import PartialState

    state = PartialState(cpu=device == CPU)  # and the GPU of the local rank becomes the current one
    _joined.rank, _joined.world = state.process_index, state.num_processes
    _joined.control = dist.new_group(backend="gloo", timeout=PATIENCE)


def leave() -> None:
    """Part at the end of a run that went well; one that failed just ends, and so ends the others."""
    if world() > 1:
        import torch.distributed as dist

        dist.destroy_process_group()
        _joined.__init__()  # type: ignore[misc]


def on_main(work: Callable[[], Made]) -> Made:
    """Do it on the main process alone while the others wait; all get what it made, or raise what it raised."""
    if world() == 1:
        return work()
    import torch.distributed as dist

    _joined.alone = is_main()
    try:
        table: list[Any] = list(_attempt(work)) if is_main() else [None, None]
    finally:
        _joined.alone = False
    dist.broadcast_object_list(table, src=0, group=_joined.control)
    if table[1] is not None:
        raise table[1]
    return cast(Made, table[0])


def main_first(work: Callable[[], Made]) -> Made:
    """Do it on the main process and then on the others, which find the files that it left. Raises what any raised."""
    if world() == 1:
        return work()
    made, error = _attempt(work) if is_main() else (None, None)
    agree(error)
    if not is_main():
        made, error = _attempt(work)
    agree(error)
    return cast(Made, made)


def everywhere(work: Callable[[], Made]) -> Made:
    """Do it on all processes at once. Raises what any raised."""
    if world() == 1:
        return work()
    made, error = _attempt(work)
    agree(error)
    return cast(Made, made)


def agree(error: Exception | None) -> None:
    """Raises on all ranks if one of them, all of which call it, has an error: its own, else that of the lowest rank."""
    if error is not None and world() == 1:
        raise error
    told = next((each for each in gathered(error) if each is not None), None)
    if told is not None:
        raise error or told


def gathered(value: Made) -> list[Made]:
    """What each rank has, in their order; an object that can be pickled."""
    if world() == 1:
        return [value]
    import torch.distributed as dist

    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value, group=_joined.control)
    return found


def speaks() -> bool:
    """Whether this process, which failed, is the one that tells: the first, so that each error is told once."""
    if _joined.world == 1:
        return _launched() == 1 or os.environ.get("RANK") == "0"  # before `join` all make the same mistake
    return _failures(1) == 1


def others_failed() -> bool:
    """Whether another process has failed, so that an error here, of a lost connection, is nothing of its own."""
    return _joined.world > 1 and _failures(0) > 0


def check_share(batch: int, name: str) -> None:
    """Raises RecipeError for a batch, the field `name`, that the processes cannot share evenly."""
    if batch % world():
        raise RecipeError(
            f"{name} is {batch}, the batch of all {world()} processes together, and does not divide by {world()}; "
            f"set it to {batch + -batch % world()}, or start another number of processes"
        )


def _launched() -> int:
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def _failures(more: int) -> int:
    """How many processes have told that they failed, `more` of them now. The store is torchrun's own, and outlives us;
    where it is gone, so are the others."""
    import torch.distributed as dist

    try:
        return int(dist.distributed_c10d._get_default_store().add(_FAILED, more))
    except (RuntimeError, ValueError):
        return 2


def _attempt(work: Callable[[], Made]) -> tuple[Made | None, Exception | None]:
    """What it made, or what it raised, as something that can be sent to others."""
    try:
        return work(), None
    except (PupilError, OSError) as error:
        return None, error
    except ImportError as error:
        return None, ImportError(str(error), name=error.name)
