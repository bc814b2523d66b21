"""Settings as texts: what MLflow keeps of them, compares, sorts and searches."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# user:password@ in an address, up to its last @: not all who should write %40 and %2F do
_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):(?!\d+/)\S+@", re.IGNORECASE)
_NO_NAME = re.compile(r"[^\w/.\- :]")
_ASKED = re.compile(r"([?&](?:password|passwd|pwd|token|secret)=)[^\s&]+", re.IGNORECASE)


def as_text(value: Any) -> str:
    """A setting as it is logged, without the password of an address.

    Numbers are written as Python does, so that MLflow's pages compare and plot them as numbers;
    true, false and none in small letters; a list as the command line takes it, with commas.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(as_text, value))
    return without_password(str(value))


def metric_name(text: str) -> str:
    """`text` without what MLflow allows in no metric's name; a class may be called anything."""
    return _NO_NAME.sub("_", text)


def storable(text: str) -> str:
    """`text` as every database takes it: PostgreSQL no NUL, and none half a character.

    Names of files that are no UTF-8 have such halves.
    """
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def without_password(text: str) -> str:
    """`text` with the password of every address in it struck out."""
    return _ASKED.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def same_value(left: str, right: str) -> bool:
    """Whether two texts name the same value: equal, equal as numbers, or equal but for quotes."""
    left, right = (text.strip("'\"") for text in (left, right))
    if left == right or left.lower() == right.lower() in ("true", "false", "none"):
        return True
    try:
        return float(left) == float(right)
    except ValueError:
        return False


def without_passwords(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with the password of every address in them struck out."""
    return {
        name: without_passwords(value)
        if isinstance(value, Mapping)
        else without_password(value)
        if isinstance(value, str)
        else value
        for name, value in settings.items()
    }
