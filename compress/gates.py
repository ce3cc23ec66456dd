"""What the outputs of a transformer's side would lose without a unit (compress/narrow.py says what units are).

A gate stands before all that reads a unit: 1 lets it through, and with 0 the outputs are those of the side without that
unit. The derivative by a gate is what its unit adds, to first order (Michel et al. 2019, arXiv 1905.10650; Molchanov et
al. 2019, arXiv 1906.10771). As in channels.py it is the derivative of the outputs themselves, each sample's at unit
length and with random signs, so that the mean square of it is the squared distance by which a sample's outputs would
move: for units of every kind, and for both sides, in the same measure.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.models.dual_encoder import Side
from compress.models.transformer import Attention
from compress.narrow import ATTEND, WIDTH, parts_of, unit_counts

Feeds = Sequence[tuple[Tensor, ...]]
Outputs = Tensor | tuple[Tensor, ...]


def unit_scores(side: Side, feeds: Feeds) -> dict[str, Tensor]:
    """Per group float32 (units,) on the CPU: the mean over samples of the squared distance by which the outputs move
    without the unit, to first order. `feeds`: batches from training data."""
    generator = torch.Generator().manual_seed(0)  # of the CPU: the same signs on every device
    counts, samples = unit_counts(side), 0
    found = {group: torch.zeros(count, device="cpu") for group, count in counts.items()}
    learns = [parameter for parameter in side.parameters() if parameter.requires_grad]
    side.eval().requires_grad_(False)  # the gates' derivatives alone cost a third less
    for feed in feeds:
        rows = len(feed[0])
        gates = {group: torch.ones(rows, count, requires_grad=True) for group, count in counts.items()}
        with gated(side, gates):
            total = signed_sum(side(*feed), generator)
        for group, slope in zip(gates, torch.autograd.grad(total, list(gates.values())), strict=True):
            found[group] += slope.square().sum(0).cpu()
        samples += rows
    for parameter in learns:
        parameter.requires_grad_(True)
    return {group: each / samples for group, each in found.items()}


@torch.no_grad()
def part_losses(side: Side, feeds: Feeds) -> dict[str, float]:
    """Per part that may be left out: the mean squared distance by which the outputs move without it, measured, for a
    whole part is too much for a first order. What pools by attention cannot do without that."""
    side.eval()
    wanted = _rows(side, feeds)
    found = {}
    for name, part in parts_of(side).items():
        if name != f"pool{ATTEND}":
            parent, _, last = name.rpartition(".")
            owner = side.tower.get_submodule(parent)
            setattr(owner, last, None)
            found[name] = float((_rows(side, feeds) - wanted).square().sum(1).mean())
            setattr(owner, last, part)
    return found


@contextmanager
def gated(side: Side, gates: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it, `side` sees its units through gates: float32 (N, units) per group, of the batch that it gets, or
    (1, units). A normalisation's mean and variance are of what the gates let through."""
    parts = parts_of(side)
    pool: Any = getattr(side.tower, "pool", None)
    with ExitStack() as hooks:
        for name, gate in gates.items():
            if name != WIDTH:
                part = parts[name]
                layer = part.out if isinstance(part, Attention) else part.narrow
                wide = gate.repeat_interleave(part.head, 1) if isinstance(part, Attention) else gate
                hooks.callback(layer.register_forward_pre_hook(_times(wide)).remove)
        if WIDTH in gates:
            for norm in side.tower.modules():
                if isinstance(norm, nn.LayerNorm):
                    # What the first one writes is read by the others, and gated there.
                    last = norm is not getattr(side.tower, "norm_first", None)
                    hooks.callback(norm.register_forward_hook(_normalised(gates[WIDTH], last)).remove)
            for reader in () if pool is None else (pool.attend.query, side.projection):
                hooks.callback(reader.register_forward_pre_hook(_times(gates[WIDTH])).remove)
        yield


def signed_sum(outputs: Outputs, generator: torch.Generator) -> Tensor:
    """The sum of all outputs (N, ...), each sample's at unit length, with random signs: a scalar."""
    total = torch.zeros(())
    for unit in _units(outputs):
        signs = torch.randint(0, 2, unit.shape, generator=generator, device="cpu").to(unit.device) * 2.0 - 1.0
        total = total + (unit * signs).sum()
    return total


def _units(outputs: Outputs) -> list[Tensor]:
    """Each output as (N, numbers), rows of unit length."""
    each = outputs if isinstance(outputs, tuple) else (outputs,)
    return [F.normalize(output.flatten(1), dim=1) for output in each]


def _rows(side: Side, feeds: Feeds) -> Tensor:
    """The outputs of all samples, a row for each, every output at unit length."""
    return torch.cat([torch.cat(_units(side(*feed)), dim=1) for feed in feeds])


def _times(gate: Tensor) -> Any:
    def hook(_: nn.Module, feeds: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (feeds[0] * _spread(gate, feeds[0].ndim), *feeds[1:])

    return hook


def _normalised(gate: Tensor, last: bool) -> Any:
    def hook(norm: nn.LayerNorm, feeds: tuple[Tensor, ...], _: Tensor) -> Tensor:
        features, open_ = feeds[0], _spread(gate, feeds[0].ndim)
        count = open_.sum(-1, keepdim=True)
        centred = features - (features * open_).sum(-1, keepdim=True) / count
        spread = (centred.square() * open_).sum(-1, keepdim=True) / count
        scaled = centred * torch.rsqrt(spread + norm.eps) * norm.weight + norm.bias
        return scaled * open_ if last else scaled

    return hook


def _spread(gate: Tensor, ndim: int) -> Tensor:
    """(N, units) to (N, 1, ..., units)."""
    return gate.reshape(len(gate), *(1,) * (ndim - 2), gate.shape[1])
