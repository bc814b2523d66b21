"""Images that are one sample together: those of a patient, or of a breast."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data import UNITS
from mammo.data.classes import ClassMap
from mammo.errors import DataError

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Sets:
    """Images dealt into sets, none empty."""

    members: Positions  # (N,) of the images, set by set
    sizes: Positions  # (S,)

    @classmethod
    def of(cls, keys: Sequence[Hashable] | NDArray[Any]) -> "Sets":
        """Sets of equal `keys` (N,): in the order of their first images, these as they come."""
        codes, names = pd.factorize(np.asarray(keys))
        sizes = np.bincount(codes, minlength=len(names))
        return cls(np.argsort(codes, kind="stable"), sizes.astype(np.int64))

    def __len__(self) -> int:
        return len(self.sizes)

    def pick(self, sets: Sequence[int] | Positions) -> tuple[Positions, NDArray[np.bool_]]:
        """Images (n,) of `sets` (s,), set by set, and `held` (s, M): which places hold one.

        M is the size of the largest, so that the images fill a table with a row a set.
        """
        chosen = np.asarray(sets, np.int64)
        sizes, starts = self.sizes[chosen], (np.cumsum(self.sizes) - self.sizes)[chosen]
        places = np.arange(sizes.max(initial=1))
        held: NDArray[np.bool_] = places < sizes[:, None]
        return self.members[(starts[:, None] + places)[held]], held

    def labels(self, label_ids: NDArray[np.int64], classes: ClassMap) -> NDArray[np.int64]:
        """The label of each set (S,), of those of its images (N,)."""
        counts = np.zeros((len(self), len(classes.names)), np.int64)
        np.add.at(counts, (np.repeat(np.arange(len(self)), self.sizes), label_ids[self.members]), 1)
        return joint_labels(counts, classes.positive_id)


def joint_labels(counts: NDArray[np.int64], positive: int) -> NDArray[np.int64]:
    """The label (S,) of sets that hold `counts` (S, K) images of each class.

    It is `positive` where any image has it, else the most frequent, of equally frequent ones that
    with the highest id.
    """
    most = counts.shape[1] - 1 - np.argmax(counts[:, ::-1], axis=1)
    found: NDArray[np.int64] = np.where(counts[:, positive] > 0, positive, most)
    return found


def set_keys(frame: pd.DataFrame, unit: str) -> NDArray[Any]:
    """Whose each image of the manifest rows `frame` is, by the `unit` of UNITS.

    A synthetic image is nobody's and stays alone.
    """
    real = ~frame["is_synthetic"].to_numpy(bool)
    if unit == "breast":
        unknown = int((frame["laterality"].to_numpy()[real] == "").sum())
        if unknown:
            raise DataError(
                f"views_of breast: {unknown} of {int(real.sum())} images tell no laterality; "
                "use views_of patient"
            )
    own = frame[list(UNITS[unit])].agg(" ".join, axis=1) if len(frame) else frame["group_id"]
    keys: NDArray[Any] = np.where(real, "of " + own, "image " + frame["image_id"]).astype(object)
    return keys
