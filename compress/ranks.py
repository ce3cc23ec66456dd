"""Which process of several this is, as torchrun and others tell it, and which share of the data is its own."""

import os
from collections.abc import Sequence
from typing import TypeVar

from runtimes import RecipeError

T = TypeVar("T")


def rank_of_world() -> tuple[int, int]:
    """(rank, world size) from RANK and WORLD_SIZE; (0, 1) where they are not set.

    Raises RecipeError unless they are numbers and the rank is below the world size.
    """
    said = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not all(text.isdecimal() for text in said) or not int(said[0]) < int(said[1]):
        raise RecipeError(
            f"wanted RANK from 0 to below WORLD_SIZE, got {said[0]!r} of {said[1]!r}; set both or neither"
        )
    return int(said[0]), int(said[1])


def shards_of(rank: int, world: int, shards: Sequence[T]) -> Sequence[T]:
    """What the process `rank` of `world` reads: each of `shards` is one rank's, and counts differ by one at most."""
    return shards[rank::world]
