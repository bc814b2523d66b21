"""Which images of a class an epoch shows, dealt like cards: shuffled once, then taken in turns.

With n images and k an epoch every image is seen within ceil(n / k) epochs, and none twice in an
epoch before all were seen in it. Then they are shuffled again.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mammo.seeds import derive

Positions = NDArray[np.int64]


def by_class(
    labels: NDArray[np.int64], count: Callable[[int, int], int], *, seed: int, epoch: int
) -> Positions:
    """Positions in `labels` (N,) that `epoch` shows, class by class.

    `count(size, smallest)` says how many of a class that has `size` images, where the smallest
    class has `smallest`; a class with fewer repeats its images, each as often as any other or
    once more.
    """
    names, sizes = np.unique(labels, return_counts=True)
    return np.concatenate(
        [
            _dealt(
                np.flatnonzero(labels == name),
                count(int(size), int(sizes.min())),
                seed=derive(seed, "balance", int(name)),
                epoch=epoch,
            )
            for name, size in zip(names, sizes, strict=True)
        ]
    )


def at_most(ratio: float) -> Callable[[int, int], int]:
    """All of the smallest class, and `ratio` times as many of another, at most all it has."""

    def count(size: int, smallest: int) -> int:
        return smallest if size == smallest else min(size, math.ceil(ratio * smallest))

    return count


def _dealt(members: Positions, count: int, *, seed: int, epoch: int) -> Positions:
    """`count` of `members` for `epoch`: whole rounds of all, and then the next in turn."""
    whole, rest = divmod(count, len(members))
    rounds = np.tile(members, whole)
    if not rest:
        return rounds
    turns = -(-len(members) // rest)  # epochs until all have had theirs
    shuffled = np.random.default_rng(derive(seed, epoch // turns)).permutation(members)
    start = epoch % turns * rest
    # the last turn fills up from the front, which it cannot reach itself
    taken = np.take(shuffled, np.arange(start, start + rest), mode="wrap")
    return np.concatenate([rounds, taken])
