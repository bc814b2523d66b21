"""Shares of a whole number, halves rounded up, without the surprises of binary fractions."""

from collections.abc import Sequence
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


def apportion(count: int, weights: Sequence[Fraction | int]) -> list[int]:
    """Split `count` by `weights`, largest remainder first (Hamilton), equals in their order."""
    total = sum(weights)
    quotas = [Fraction(count * weight, total) for weight in weights]
    parts = [floor(quota) for quota in quotas]
    # sorted() is stable: equal remainders go by order
    order = sorted(range(len(quotas)), key=lambda place: parts[place] - quotas[place])
    for place in order[: count - sum(parts)]:
        parts[place] += 1
    return parts
