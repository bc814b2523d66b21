"""Where the values of a setting stand on an axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mammo.search.space import Dimension

ABSENT = -0.1  # share at which a setting without a value is drawn


@dataclass(frozen=True)
class Scale:
    """The axis of one setting over the values that were tried."""

    dimension: Dimension
    seen: tuple[Any, ...]  # each value once, in order

    @property
    def name(self) -> str:
        return self.dimension.name

    @property
    def varies(self) -> bool:
        return len(self.seen) > 1

    @property
    def is_number(self) -> bool:
        """Whether there is a distance between its values."""
        return all(
            isinstance(each, int | float) and not isinstance(each, bool) for each in self.seen
        )

    @property
    def is_range(self) -> bool:
        return not self.dimension.choices

    def place(self, value: Any) -> float:
        """Of a range the number, or its logarithm to 10; of choices their place in the space."""
        if not self.is_range:
            return float(self.dimension.choices.index(value))
        return math.log10(value) if self.dimension.log else float(value)

    def share(self, value: Any) -> float:
        """Where a value stands between the ends of the space, 0 to 1; ABSENT without one."""
        if value is None:
            return ABSENT
        low, high = self._ends()
        return (self.place(value) - low) / (high - low) if high > low else 0.5

    def marks(self) -> list[tuple[float, str]]:
        """Shares and texts to write beside the axis."""
        low, high = self._ends()
        if not self.is_range:
            return [(self.share(each), str(each)) for each in self.dimension.choices]
        places = ((0.0, low), (0.5, (low + high) / 2), (1.0, high))
        if self.dimension.log:
            return [(share, f"{10**at:.2g}") for share, at in places]
        return [(share, f"{at:.2g}") for share, at in places]

    def _ends(self) -> tuple[float, float]:
        if not self.is_range:
            return 0.0, float(len(self.dimension.choices) - 1)
        return self.place(self.dimension.low), self.place(self.dimension.high)


def scale_of(dimension: Dimension, values: Sequence[Any]) -> Scale:
    """The axis of a setting of which `values` were tried."""
    order = dimension.choices.index if dimension.choices else float
    return Scale(dimension, tuple(sorted(set(values), key=order)))
