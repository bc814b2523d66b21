"""How much of its image a mask covers, and how much it may cover to count as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammo.generators.asking import parse_range
from mammo.generators.shelf import Effort

if TYPE_CHECKING:
    from mammo.data.dataset import Dataset

INSIDE = np.uint8(255)
Masks = NDArray[np.uint8]  # (N, 1, H, W): 255 inside, 0 outside
_AT_ONCE = 256  # masks in memory
# What is said of masks that break a rule, with {threshold} and {area} as they were set.
RULES = {
    "empty": "no value of theirs reaches mask_threshold {threshold:g}; train the generator of "
    "masks longer, or lower mask_threshold",
    "too_small": "they cover less of the image than mask_area {area} allows; train the generator "
    "of masks longer, or lower mask_threshold or the first number of mask_area",
    "too_large": "they cover more of the image than mask_area {area} allows; train the generator "
    "of masks longer, or raise mask_threshold or the second number of mask_area",
}


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

    def broken(self, label: str, share: float) -> str:
        """Which of RULES a mask of class `label` breaks that covers `share`; "" for none."""
        low, high = self._range(label)
        if share <= 0:
            return "empty"
        if share < low:
            return "too_small"
        return "too_large" if share > high else ""

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


def broken(labels: Sequence[str], masks: Masks, bounds: Bounds) -> NDArray[np.str_]:
    """The rule (N,) that each mask (N, 1, H, W) of `labels` breaks; "" where it is valid."""
    found = [bounds.broken(name, s) for name, s in zip(labels, shares(masks), strict=True)]
    return np.array(found, np.str_)


def counted(rules: NDArray[np.str_]) -> Effort:
    """How many masks broke each of the rules."""
    return Effort(**{f"mask_{rule}": int((rules == rule).sum()) for rule in RULES})


def rejected(effort: Effort) -> dict[str, int]:
    """Rejected masks by the rule that they broke."""
    return {rule: int(getattr(effort, f"mask_{rule}")) for rule in RULES}


def rejection(label: str, bounds: Bounds, effort: Effort) -> str:
    """Why masks of class `label` are rejected, and what to do."""
    told = [f"{count} were {rule}".replace("_", " ") for rule, count in rejected(effort).items()]
    return (
        f"a mask of class {label} should cover {bounds.words(label)} of the image (mask_area); "
        f"{', '.join(told)}; train the generator of masks longer, or change mask_area or "
        "mask_threshold"
    )
