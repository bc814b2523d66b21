"""Types of settings: numbers with a range and names from a list, checked on the command line."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    Fraction = float
    PositiveInt = int
    Count = int
    PositiveFloat = float
    NonNegativeFloat = float
else:
    from jsonargparse.typing import ClosedUnitInterval as Fraction
    from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
    from jsonargparse.typing import NonNegativeInt as Count

__all__ = ["Count", "Fraction", "NonNegativeFloat", "PositiveFloat", "PositiveInt", "one_of"]


def one_of(names: Iterable[str]) -> Any:
    """Type of a setting that takes one of `names` (a registry, say)."""
    return Literal[tuple(sorted(names))]
