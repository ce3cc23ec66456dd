"""Structured pruning of transformers to a number of parameters: the width of the residual stream, heads, hidden units
and whole parts go, whatever moves the outputs least per parameter saved, measured anew after each round."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from compress.gates import Feeds, part_losses, unit_scores
from compress.models.dual_encoder import Side
from compress.narrow import ATTEND, WIDTH, Inventory, inventory, narrowed
from compress.progress import bar
from runtimes import RecipeError

CHUNK = 8  # dimensions and hidden units go in multiples of it: engines compute in blocks of 8 or 16
ROUNDS = 8  # how often importance is measured again
SHARE = 2  # at most one in so many units of a group goes in a round: to first order all were still there
SLACK = 0.02  # how far below a target the last removal may lead before smaller ones are tried
SAMPLES = 64  # on which the loss of whole parts is measured


@dataclass(frozen=True)
class Trunk:
    """A side on its way to fewer parameters. `module`, `options`: what built its tower. `feeds`: batches from training
    data on which importance is measured."""

    side: Side
    module: Any
    options: Mapping[str, Any]
    feeds: Feeds = field(repr=False)


Trunks = Mapping[str, Trunk]


@dataclass(frozen=True)
class Removal:
    """`units` of a group that go, all of them where a part is left out: what the outputs lose, and how many parameters
    it saves when nothing else goes."""

    trunk: str
    group: str
    units: tuple[int, ...]
    loss: float
    saved: int
    whole: bool = False


def shrink(trunks: Trunks, most: int, title: str) -> Trunks:
    """The trunks, by name, cut until they have at most `most` parameters together.

    Raises RecipeError, saying the smallest, when no shape that can be had by cutting has so few.
    """
    check_smallest(trunks, most, title)
    whole = total(trunks)
    with bar(title, ROUNDS) as tick:
        for done in range(ROUNDS):
            aim = whole - (whole - most) * (done + 1) // ROUNDS
            while total(trunks) > aim:
                trunks = remove(trunks, choose(trunks, aim, most))
            tick(f"{total(trunks) / 1e6:.2f} M")
    return trunks


def total(trunks: Trunks) -> int:
    """How many parameters they have together."""
    return sum(trunk.side.count() for trunk in trunks.values())


def check_smallest(trunks: Trunks, most: int, title: str, of: int = 0) -> None:
    """Raises RecipeError if `most` parameters are fewer than the smallest shape has; `of`: what shares are of, if not
    of the trunks as they are."""
    stocks = [inventory(trunk.side) for trunk in trunks.values()]
    least, whole = sum(stock.params(smallest(stock)) for stock in stocks), of or total(trunks)
    if most < least:
        share = -(-least * 10000 // whole) / 10000  # rounded up: it can be asked for
        raise RecipeError(
            f"{title}: {most} parameters were asked for, and the smallest shape of {' and '.join(trunks)} has {least}, "
            f"a share of {share:.4f}; ask for more, or for fewer words (prune.text_options)"
        )


def smallest(stock: Inventory) -> dict[str, int]:
    """Units per group when everything has gone that can: one head, and CHUNK dimensions, stay."""
    sizes = dict.fromkeys(stock.sizes, 0) | {WIDTH: min(CHUNK, stock.sizes[WIDTH])}
    attention = [group for group in stock.sizes if group.endswith(ATTEND)]
    return sizes | dict.fromkeys(attention[-1:], 1)  # what pools comes last, and stays


def choose(trunks: Trunks, aim: int, most: int) -> list[Removal]:
    """What goes next, the cheapest first, until at most `aim` parameters are left, or one round's share is gone.
    `most`: what is wanted in the end, at most `aim`."""
    stocks = {name: inventory(trunk.side) for name, trunk in trunks.items()}
    offers = [offer for name, trunk in trunks.items() for offer in _offers(name, trunk, stocks[name])]
    offers.sort(key=lambda offer: (offer.loss / offer.saved, not offer.whole))
    plain, left = _within(offers, stocks, aim, 0)
    if left >= most * (1 - SLACK):
        return plain
    # The last one saves more than is wanted: perhaps several smaller ones lose less.
    finer, left = _within(offers, stocks, aim, int(most * (1 - SLACK)))
    return finer if left <= aim and _loss(finer) < _loss(plain) else plain


def remove(trunks: Trunks, removals: Sequence[Removal]) -> Trunks:
    """The trunks without what is to be removed."""
    made = dict(trunks)
    for name, trunk in trunks.items():
        sizes, gone = inventory(trunk.side).sizes, [each for each in removals if each.trunk == name]
        kept = {}
        for group in {each.group for each in gone}:
            going = {unit for each in gone if each.group == group for unit in each.units}
            kept[group] = torch.tensor([unit for unit in range(sizes[group]) if unit not in going], dtype=torch.int64)
        if kept:
            side, options = narrowed(trunk.side, trunk.module, trunk.options, kept)
            made[name] = replace(trunk, side=side, options=options)
    return made


def describe(options: Mapping[str, Any]) -> str:
    """What stays, per layer, in words."""
    each = {name: " ".join(map(str, options[f"each_{name}"])) for name in ("heads", "hidden")}
    return f"width {options['width']}; heads {each['heads']}; hidden {each['hidden']}"


def _offers(name: str, trunk: Trunk, stock: Inventory) -> Iterator[Removal]:
    """All that may go from one trunk in a round."""
    whole = stock.params(stock.sizes)
    for group, scores in unit_scores(trunk.side, trunk.feeds).items():
        count, chunk = stock.sizes[group], 1 if group.endswith(ATTEND) else CHUNK
        saved = whole - stock.params({**stock.sizes, group: count - 1})
        order = scores.argsort(stable=True).tolist()
        at, going = 0, count % chunk or chunk  # so that what stays is a multiple
        while at + going <= max(going, count // SHARE) and at + going < count:
            units = order[at : at + going]
            yield Removal(name, group, tuple(units), float(scores[units].sum()), saved * going)
            at, going = at + going, chunk
    for group, lost in part_losses(trunk.side, _few(trunk.feeds)).items():
        saved = whole - stock.params({**stock.sizes, group: 0})
        yield Removal(name, group, tuple(range(stock.sizes[group])), lost, saved, whole=True)


def _few(feeds: Feeds) -> Feeds:
    """The first SAMPLES samples, to whole batches."""
    found: list[tuple[torch.Tensor, ...]] = []
    for feed in feeds:
        if sum(len(each[0]) for each in found) < SAMPLES:
            found.append(feed)
    return found


def _within(
    offers: Sequence[Removal], stocks: Mapping[str, Inventory], aim: int, least: int
) -> tuple[list[Removal], int]:
    """The first offers that bring the sum of parameters to `aim`, none of which brings it below `least`; and the sum
    that they bring it to."""
    sizes = {name: dict(stock.sizes) for name, stock in stocks.items()}
    params = {name: stock.params(stock.sizes) for name, stock in stocks.items()}
    chosen: list[Removal] = []
    for offer in offers:
        whole, own = sum(params.values()), sizes[offer.trunk]
        if whole <= aim:
            break
        if not own[offer.group] or (offer.whole and _needed(offer.group, own)):
            continue
        count = 0 if offer.whole else own[offer.group] - len(offer.units)
        left = stocks[offer.trunk].params({**own, offer.group: count})
        if whole - params[offer.trunk] + left >= least:
            own[offer.group], params[offer.trunk] = count, left
            chosen.append(offer)
    return chosen, sum(params.values())


def _loss(removals: Sequence[Removal]) -> float:
    return sum(removal.loss for removal in removals)


def _needed(group: str, sizes: Mapping[str, int]) -> bool:
    """Whether it is the last attention: without any, all images, and all texts, would be alike."""
    others = (count for name, count in sizes.items() if name.endswith(ATTEND) and name != group)
    return group.endswith(ATTEND) and not any(others)
