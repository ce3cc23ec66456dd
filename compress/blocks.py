"""Which residual blocks of a tower matter least, measured by what the outputs lose without them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.models.dual_encoder import Side
from compress.models.pruned import Skip
from compress.progress import bar
from runtimes import RecipeError

Feeds = Sequence[tuple[Tensor, ...]]


def leave_out_least(side: Side, feeds: Feeds, drop: int, title: str) -> tuple[str, ...]:
    """Leave `drop` residual blocks of the side's tower out, in place, one after the other, each time the one without
    which the outputs turn least. `feeds`: batches from training data. Returns the blocks' names.

    Raises RecipeError when the tower has too few of them.
    """
    offered = blocks_of(side.tower)
    check_drop(title, drop, offered)
    gone: list[str] = []
    side.eval()
    wanted = _outputs(side, feeds)
    with bar(title, sum(len(offered) - done for done in range(drop))) as tick:
        for _ in range(drop):
            left = [name for name in offered if name not in gone]
            turned = {}
            for name in left:
                block = _swap(side.tower, name, Skip())
                turned[name] = _turn(_outputs(side, feeds), wanted)
                _swap(side.tower, name, block)
                tick(f"{name} {turned[name]:.3f}")
            gone.append(min(left, key=turned.__getitem__))
            _swap(side.tower, gone[-1], Skip())
    return tuple(sorted(gone))


def blocks_of(tower: nn.Module) -> tuple[str, ...]:
    """Names of the residual blocks that a tower says may be left out, and that still are there."""
    named: tuple[str, ...] = getattr(tower, "residual_blocks", tuple)()
    return tuple(name for name in named if not isinstance(tower.get_submodule(name), Skip))


def check_drop(what: str, drop: int, offered: Sequence[str]) -> None:
    """Raises RecipeError if more blocks are to go than there are."""
    if drop > len(offered):
        raise RecipeError(
            f"{what}: {drop} blocks were to be left out, and the tower has {len(offered)} that can be; ask for fewer"
        )


@torch.no_grad()
def _outputs(side: Side, feeds: Feeds) -> list[Tensor]:
    """Every output for every batch, a row per sample."""
    made = [side(*feed) for feed in feeds]
    return [output.flatten(1) for each in made for output in (each if isinstance(each, tuple) else (each,))]


def _turn(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Mean cosine distance over rows, batches and outputs."""
    each = [1 - F.cosine_similarity(got, want).mean() for got, want in zip(outputs, wanted, strict=True)]
    return float(torch.stack(each).mean())


def _swap(tower: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put `module` where `name` is, and return what was there."""
    parent, _, last = name.rpartition(".")
    before = tower.get_submodule(name)
    setattr(tower.get_submodule(parent), last, module)
    return before
