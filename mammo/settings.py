"""Types of settings: numbers with a range and names from a list, checked on the command line."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

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

__all__ = [
    "Count",
    "Fraction",
    "NonNegativeFloat",
    "PositiveFloat",
    "PositiveInt",
    "expected",
    "one_of",
]


def one_of(names: Iterable[str]) -> Any:
    """Type of a setting that takes one of `names` (a registry, say)."""
    return Literal[tuple(sorted(names))]


def expected(kind: Any) -> str:
    """What a setting of type `kind` takes, in words; empty for a text."""
    words: dict[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        Fraction: "a number from 0 to 1",
        PositiveInt: "a whole number of at least 1",
        Count: "a whole number of at least 0",
        PositiveFloat: "a number above 0",
        NonNegativeFloat: "a number of at least 0",
    }
    return words.get(kind, " or ".join(map(str, get_args(kind))))
