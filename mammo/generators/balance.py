"""Balance of classes: which training images an epoch shows, drawn anew each epoch by its number.

The images of a class are dealt like cards: shuffled once, then taken in turns, so that with n
images and k an epoch every image is seen within ceil(n / k) epochs, and none twice in an epoch
before all were seen in it. Then they are shuffled again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.errors import ConfigError
from mammo.seeds import derive

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Balance:
    """How many images of each class an epoch shows.

    `how` none shows all. ratio shows all of the smallest class, and of every other
    `majority_ratio` times as many, at most all it has. fixed shows `samples_per_class` of each;
    a class with fewer repeats its images, each as often as any other or once more.
    """

    how: str = "none"
    majority_ratio: float = 1.0
    samples_per_class: int = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Balance:
        """That of the settings of train_generator."""
        how = str(settings["balance"])
        return cls(how, float(settings["majority_ratio"]), int(settings["samples_per_class"]))

    def positions(self, labels: NDArray[np.int64], *, seed: int, epoch: int) -> Positions:
        """Positions in `labels` (N,) that `epoch` shows, class by class."""
        if self.how == "none":
            return np.arange(len(labels))
        names, sizes = np.unique(labels, return_counts=True)
        return np.concatenate(
            [
                _dealt(
                    np.flatnonzero(labels == name),
                    self._count(int(size), int(sizes.min())),
                    seed=derive(seed, "balance", int(name)),
                    epoch=epoch,
                )
                for name, size in zip(names, sizes, strict=True)
            ]
        )

    def _count(self, size: int, smallest: int) -> int:
        """Images an epoch shows of a class that has `size`."""
        if self.how == "fixed":
            return self.samples_per_class
        return (
            smallest if size == smallest else min(size, math.ceil(self.majority_ratio * smallest))
        )


def check_balance(settings: Mapping[str, Any]) -> None:
    """ConfigError for settings of another balance, or one that lacks its number."""
    how, each = settings["balance"], settings["samples_per_class"]
    if how == "fixed" and not each:
        raise ConfigError("balance 'fixed' needs samples_per_class, as samples_per_class=500")
    if how != "fixed" and each:
        raise ConfigError(
            f"samples_per_class {each} has no effect with balance {how!r}; use balance=fixed"
        )
    if how != "ratio" and settings["majority_ratio"] != 1:
        raise ConfigError(
            f"majority_ratio {settings['majority_ratio']:g} has no effect with balance {how!r}; "
            "use balance=ratio"
        )


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
