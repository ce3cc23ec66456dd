"""Structured pruning of channels, by what the outputs would lose.

torch-pruning knows which channels hang together (Fang et al. 2023, arXiv 2301.12900). Which of them go is decided here:
those whose loss moves the outputs least per parameter saved, a few at a time, measured again in between.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.gates import signed_sum
from compress.models.dual_encoder import count
from compress.progress import bar
from runtimes import RecipeError

CHUNK = 8  # channels go in multiples of it: engines compute in blocks of 8 or 16
ROUNDS = 8  # how often importance is measured again
AT_ONCE = 3  # groups that lose channels before their costs are compared again
SHARE = 8  # at most one in so many channels of a group goes at a time

Batches = Sequence[Tensor]


@dataclass(frozen=True)
class Candidate:
    """The least important channels of one group, and what losing them costs per parameter saved."""

    root: nn.Module
    prune: Any
    channels: list[int]
    cost: float


def prune_channels(side: nn.Module, batches: Batches, most: int, title: str) -> None:
    """Take channels out of the convolutions of `side`, in place, until it has at most `most` parameters.

    `batches`: float32 (N, 3, S, S) each, from training data. Afterwards the statistics of the normalisations are
    measured anew on them. Raises RecipeError when fewer parameters are asked for than any channels left would have.
    """
    example, whole = batches[0][:2], count(side)
    side.eval()
    graph = tp.DependencyGraph().build_dependency(side, example_inputs=example)
    with bar(title, ROUNDS) as tick:
        for done in range(ROUNDS):
            aim = whole - (whole - most) * (done + 1) // ROUNDS
            scores = gate_scores(side, batches) if count(side) > aim else {}
            while count(side) > aim:
                found = [c for c in map(_candidate(scores), _groups(graph)) if c is not None]
                found.sort(key=lambda candidate: candidate.cost)
                if not found:
                    raise RecipeError(
                        f"{title}: {most} parameters were asked for, and no narrower network has fewer than "
                        f"{count(side)}; ask for more"
                    )
                # Finding all groups takes longer than all else here: a few of the cheapest go at a time.
                for candidate in found[:AT_ONCE]:
                    if count(side) > aim:
                        _remove(graph, candidate, scores)
            tick(f"{count(side) / 1e6:.2f} M")
    recalibrate(side, batches)


def gate_scores(side: nn.Module, batches: Batches) -> dict[nn.Module, Tensor]:
    """Per layer that mixes channels (dense convolution, linear), float32 (batches, inputs): how much the outputs move
    if it did not see an input channel, to first order.

    A gate of 1 in front of each input has the derivative sum(w dL/dw) over that input's weights (Molchanov et al. 2019,
    arXiv 1906.10771). L is the sum of all outputs with random signs (each output first scaled to unit length per
    sample), so that the mean square of the derivative is the squared norm of the change: it needs no labels, and does
    not vanish at a trained minimum as a loss does. Squares are for the caller: derivatives of layers that read the same
    channels add up before.
    """
    layers = [module for module in side.modules() if _mixes(module)]
    generator = torch.Generator().manual_seed(0)  # of the CPU: the same signs on every device
    found: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}
    for batch in batches:
        side.zero_grad(set_to_none=True)
        total = signed_sum(side(batch), generator)
        total.backward()  # type: ignore[no-untyped-call]
        for layer in layers:
            weight: Any = layer.weight
            if weight.grad is not None:
                found[layer].append((weight * weight.grad).detach().transpose(0, 1).flatten(1).sum(1))
    side.zero_grad(set_to_none=True)
    return {layer: torch.stack(rows) for layer, rows in found.items() if rows}


def _mixes(layer: nn.Module) -> bool:
    """Whether each output of the layer sees all inputs."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


@torch.no_grad()
def recalibrate(side: nn.Module, batches: Batches) -> None:
    """Measure the mean and variance of every normalisation again: with fewer channels before it they are others."""
    norms = [module for module in side.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    side.train()
    for batch in batches:
        side(batch)
    side.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _groups(graph: Any) -> Any:
    return graph.get_all_groups(root_module_types=[nn.Conv2d])


def _candidate(scores: dict[nn.Module, Tensor]) -> Callable[[Any], Candidate | None]:
    """For a group of layers that share channels: its cheapest chunk, None where a chunk is all there is."""

    def of(group: Any) -> Candidate | None:
        channels = len(group[0].idxs)
        if channels <= CHUNK:
            return None
        loss, saved = torch.zeros(0), 0
        for dep, _ in group:
            layer, weight = dep.target.module, getattr(dep.target.module, "weight", None)
            if _reads(dep, scores) and scores[layer].shape[1] == channels:
                loss = scores[layer] if loss.numel() == 0 else loss + scores[layer]
            if isinstance(weight, nn.Parameter):
                saved += weight.numel() // channels
        if loss.numel() == 0:
            return None
        going = max(CHUNK, channels // SHARE // CHUNK * CHUNK)
        going -= (going - channels) % CHUNK  # what stays is a multiple of CHUNK
        each = loss.square().mean(0)
        chosen = each.argsort()[:going]
        cost = float(each[chosen].sum()) / (going * saved)
        return Candidate(group[0].dep.target.module, group[0].dep.handler, sorted(chosen.tolist()), cost)

    return of


def _remove(graph: Any, candidate: Candidate, scores: dict[nn.Module, Tensor]) -> None:
    group = graph.get_pruning_group(candidate.root, candidate.prune, idxs=candidate.channels)
    for dep, idxs in group:
        if _reads(dep, scores):
            layer, gone = dep.target.module, set(idxs)
            keep = [channel for channel in range(scores[layer].shape[1]) if channel not in gone]
            scores[layer] = scores[layer][:, keep]
    group.prune()


def _reads(dep: Any, scores: dict[nn.Module, Tensor]) -> bool:
    """Whether this member of a group is a layer that is scored, seen from its inputs."""
    inputs = {tp.prune_conv_in_channels, tp.prune_linear_in_channels}
    return dep.target.module in scores and dep.handler in inputs
