"""How much of its image a mask covers, and how much it may cover to count as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammo.generators.asking import parse_range

if TYPE_CHECKING:
    from mammo.data.dataset import Dataset

INSIDE = np.uint8(255)
Masks = NDArray[np.uint8]  # (N, 1, H, W): 255 inside, 0 outside
_AT_ONCE = 256  # masks in memory


@dataclass(frozen=True)
class Bounds:
    """Which share of an image a mask may cover, by class; never nothing."""

    by_class: Mapping[str, tuple[float, float]]
    others: tuple[float, float]

    @classmethod
    def of(cls, setting: str, areas: Mapping[str, Sequence[float]]) -> Bounds:
        """`setting` "low,high" for all classes, or "auto": the range of the training masks."""
        if setting != "auto":
            return cls({}, parse_range(setting, "mask_area"))
        by_class = {name: (float(low), float(high)) for name, (low, high) in areas.items()}
        lows, highs = zip(*by_class.values(), strict=True) if by_class else ((0.0,), (1.0,))
        return cls(by_class, (min(lows), max(highs)))

    def hold(self, label: str, share: float) -> bool:
        """Whether a mask of class `label` may cover `share` of the image."""
        low, high = self._range(label)
        return share > 0 and low <= share <= high

    def words(self, label: str) -> str:
        low, high = self._range(label)
        return f"{low:.3g} to {high:.3g}"

    def _range(self, label: str) -> tuple[float, float]:
        return self.by_class.get(label, self.others)


def binarized(images: NDArray[np.float32], threshold: float) -> Masks:
    """Masks of a generator's images (N, 1, H, W) in [0, 1]: inside from `threshold` on."""
    return np.where(images >= threshold, INSIDE, np.uint8(0))


def shares(masks: NDArray[Any]) -> NDArray[np.float64]:
    """Share (N,) of its image that each mask (N, 1, H, W) covers."""
    found: NDArray[np.float64] = (masks > 0).mean(axis=(1, 2, 3))
    return found


def areas(data: Dataset, rows: NDArray[np.int64]) -> dict[str, list[float]]:
    """Least and largest share that a mask of `rows` covers, by class; empty masks do not count."""
    found = stored_shares(data, rows)
    labels = data.manifest["label"].to_numpy()[rows]
    marked = {name: found[(labels == name) & (found > 0)] for name in data.classes.names}
    return {name: [float(s.min()), float(s.max())] for name, s in marked.items() if len(s)}


def stored_shares(data: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share (len(rows),) that the mask of each row covers; 0 where there is none."""
    parts = [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
    return np.concatenate([np.empty(0), *(shares(data.masks(part)) for part in parts)])


def valid(labels: Sequence[str], masks: Masks, bounds: Bounds) -> NDArray[np.bool_]:
    """Which masks (N, 1, H, W) of `labels` cover as much as they may."""
    held = [bounds.hold(name, s) for name, s in zip(labels, shares(masks), strict=True)]
    return np.array(held, bool)


def rejection(label: str, bounds: Bounds) -> str:
    """Why masks of class `label` are rejected, and what to do."""
    return (
        f"a mask of class {label} should cover {bounds.words(label)} of the image (mask_area); "
        "train the generator of masks longer, or change mask_area or mask_threshold"
    )
