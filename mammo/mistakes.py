"""What is wrong with a command line, in one line: the setting, its value, what would be right."""

import difflib
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mammo.settings import expected


def explain(arguments: Sequence[str], kinds: Mapping[str, Any], required: Collection[str]) -> str:
    """The first mistake in `arguments` (`--name value` or `--name=value`); empty if there is none.

    `kinds` holds the type of every setting, `required` the names of those that have no default.
    """
    left, given = list(arguments), set()
    while left:
        token = left.pop(0)
        if not token.startswith("--"):
            return f"unexpected {token!r}; settings are given as --name value"
        name, equals, value = token[2:].partition("=")
        if name not in kinds:
            return _unknown(name, kinds)
        if not equals and (not left or left[0].startswith("--")):
            return f"{name} has no value; give --{name} and {expected(kinds[name]) or 'a text'}"
        wrong = _misfit(name, value if equals else left.pop(0), kinds[name])
        if wrong:
            return wrong
        given.add(name)
    missing = [name for name in required if name not in given]
    if missing:
        return f"{missing[0]} is missing; give --{missing[0]} and its value (--help lists all)"
    return ""


def _unknown(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    advice = f"did you mean {near[0]}?" if near else "--help lists all settings"
    return f"unknown setting {name!r}; {advice}"


def _misfit(name: str, value: str, kind: Any) -> str:
    """Why `value` cannot be a `kind`; empty when it can."""
    choices = typing.get_args(kind)
    if choices:
        named = ", ".join(each or "an empty text" for each in choices)
        return "" if value in choices else f"unknown {name} {value!r}; choose one of {named}"
    if kind is bool:
        fits = value.lower() in ("true", "false", "yes", "no")
    else:
        try:
            kind(value)
            fits = True
        except ValueError:
            fits = False
    return "" if fits else f"{name} {_shown(value)} cannot be used; give {expected(kind)}"


def _shown(value: str) -> str:
    """A number as it is, any other text in quotes."""
    try:
        float(value)
    except ValueError:
        return repr(value)
    return value
