"""One batch on several processes: each rank computes its share, and every rank the same loss of the whole.

A contrastive loss needs the whole batch. So the ranks gather what their shares became (all-gather), each computes the
loss of all, and what goes back is added up over the ranks and given to whom it belongs. The mean of the gradients over
the ranks then is the gradient of the one loss, for what is before the gather as well as for what comes after it. With
one process every function here gives back what it got.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.processes import rank, world

Rows = TypeVar("Rows", list[int], NDArray[np.int64])


def share(rows: Rows) -> Rows:
    """This rank's part of `rows`, whose number divides by the world size: a stretch, so `gather` keeps the order."""
    return rows if world() == 1 else rows[part(len(rows))]


def part(count: int) -> slice:
    """Where this rank's share of `count` rows lies."""
    size = count // world()
    return slice(rank() * size, (rank() + 1) * size)


def gather(mine: Tensor) -> Tensor:
    """(n, ...) of each rank to (world n, ...) in the order of ranks, the same everywhere; gradients flow through it."""
    return mine if world() == 1 else cast(Tensor, _Gather.apply(mine))


def spread(rows: list[int], encode: Callable[[list[int]], Tensor]) -> Tensor:
    """`encode` of all rows, (len(rows), ...), of which each rank computes its share: the last one may have rows twice,
    whose second vectors are dropped."""
    if world() == 1:
        return encode(rows)
    filled = [*rows, *rows[:1] * (-len(rows) % world())]
    return gather(encode(share(filled)))[: len(rows)]


def mean_value(value: Tensor) -> float:
    """The mean of a scalar over the ranks, the same everywhere: what one of them computes of its share alone is in it,
    and if one is not finite all know."""
    if world() == 1:
        return value.item()
    import torch.distributed as dist

    total = value.detach().clone()
    dist.all_reduce(total)
    return total.item() / world()


@torch.no_grad()
def mean_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients by their means over the ranks, in one all-reduce for all of a type.

    What has a gradient on any rank gets one on all: a rank whose images nobody asked about does not train the fusion,
    but goes with the others. Not DistributedDataParallel, whose hooks want a model's `forward`, and losses here call
    its parts.
    """
    if world() == 1:
        return
    import torch.distributed as dist

    weights = [weight for weight in parameters if weight.requires_grad]
    if not weights:
        return
    used = torch.tensor([float(weight.grad is not None) for weight in weights], device=weights[0].device)
    dist.all_reduce(used)
    told = [weight for weight, count in zip(weights, used.tolist(), strict=True) if count]
    for kind in sorted({weight.dtype for weight in told}, key=str):
        grads = [_grad(weight) for weight in told if weight.dtype == kind]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, mean in zip(grads, torch.split(flat / world(), [grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))


def _grad(weight: Tensor) -> Tensor:
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


class _Gather(torch.autograd.Function):
    """All-gather. Not torch.distributed.nn.functional.all_gather, which is deprecated, and whose way back differs by
    backend; an all-reduce, of which each rank takes its rows, is the same sum on all of them."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        """(n, ...) to (world n, ...)."""
        import torch.distributed as dist

        mine = mine.contiguous()
        found = [torch.empty_like(mine) for _ in range(world())]
        dist.all_gather(found, mine)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """(world n, ...) to (n, ...)."""
        import torch.distributed as dist

        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[part(len(total))]
