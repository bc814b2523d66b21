"""Types of settings: numbers with a range and names from a list, checked on the command line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Fraction = float
    PositiveInt = int
    Count = int
    PositiveFloat = float
    NonNegativeFloat = float
else:
    from jsonargparse.typing import restricted_number_type

    Fraction = restricted_number_type("Fraction", float, [(">=", 0), ("<=", 1)])
    PositiveInt = restricted_number_type("PositiveInt", int, (">", 0))
    Count = restricted_number_type("Count", int, (">=", 0))
    PositiveFloat = restricted_number_type("PositiveFloat", float, (">", 0))
    NonNegativeFloat = restricted_number_type("NonNegativeFloat", float, (">=", 0))
