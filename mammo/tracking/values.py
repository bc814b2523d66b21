"""Settings as texts: how they are logged, and when two name the same value."""

from typing import Any


def as_text(value: Any) -> str:
    """A setting as it is logged: true and false in small letters, everything else as `str`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def same_value(left: str, right: str) -> bool:
    """Whether two texts name the same value: equal, equal as numbers, or equal but for quotes."""
    left, right = (text.strip("'\"") for text in (left, right))
    if left == right or left.lower() == right.lower() in ("true", "false"):
        return True
    try:
        return float(left) == float(right)
    except ValueError:
        return False
