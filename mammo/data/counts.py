"""Shares of a whole number, halves rounded up, without the surprises of binary fractions."""

from fractions import Fraction
from math import floor


def exact(value: float) -> Fraction:
    """`value` as the fraction its shortest decimal text names: 0.35 is 7/20."""
    return Fraction(repr(float(value)))


def round_half_up(value: Fraction) -> int:
    """Nearest whole number; a half goes up."""
    return floor(value + Fraction(1, 2))


def share(fraction: float, count: int) -> int:
    """`fraction` of `count`, halves rounded up: 0.35 of 10 is 4, although 0.35 * 10 is 3.5."""
    return round_half_up(exact(fraction) * count)
