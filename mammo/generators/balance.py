"""Balance of classes: which training images an epoch shows, drawn anew each epoch by its number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.dealing import Positions, at_most, by_class
from mammo.errors import ConfigError


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
        fixed = self.how == "fixed"
        count = (lambda *_: self.samples_per_class) if fixed else at_most(self.majority_ratio)
        return by_class(labels, count, seed=seed, epoch=epoch)


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
