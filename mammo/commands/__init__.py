"""Commands beside the entry points: they look, fetch and convert, and open no run.

A command is a module here with a function `command(arguments)`, which hands a function of its own
to `call`: positional parameters are the words after the command's name, keyword-only ones the
settings `--name value`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from mammo.errors import ConfigError

COMMANDS: Mapping[str, str] = {
    "data": "public collections, and the layouts of other systems",
    "doctor": "what is wrong with a dataset, as a page with pictures",
    "lineage": "what a run was made from, and what was made from it",
}


def call(name: str, function: Callable[..., int], arguments: Sequence[str]) -> int:
    """Call `function` with `arguments`; ConfigError says in one line what is wrong with them."""
    from mammo.mistakes import explain

    words = _words(function)
    kinds = _kinds(function)
    if {"-h", "--help"} & set(arguments):
        print(usage(name, function))
        return 0
    positional = list(arguments[: len(words)])
    if len(positional) < len(words) or any(each.startswith("-") for each in positional):
        raise ConfigError(f"{words[0]} is missing; {usage(name, function).splitlines()[0]}")
    rest = list(arguments[len(words) :])
    wrong = explain(rest, kinds, [])
    if wrong:
        raise ConfigError(wrong)
    return function(*positional, **_read(rest, kinds))


def usage(name: str, function: Callable[..., int]) -> str:
    """How `function` is called, its docstring, and its settings with their defaults."""
    words = " ".join(word.upper() for word in _words(function))
    settings = [
        f"  --{each.name} ({each.default!r})"
        for each in inspect.signature(function).parameters.values()
        if each.kind is each.KEYWORD_ONLY
    ]
    text = inspect.getdoc(function) or ""
    return "\n".join([f"usage: mammo {name} {words} [--name value ...]", "", text, *settings])


def _words(function: Callable[..., int]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]


def _kinds(function: Callable[..., int]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.annotation for each in parameters if each.kind is each.KEYWORD_ONLY}


def _read(arguments: Sequence[str], kinds: Mapping[str, Any]) -> dict[str, Any]:
    left, settings = list(arguments), dict[str, Any]()
    while left:
        name, equals, value = left.pop(0)[2:].partition("=")
        value = value if equals else left.pop(0)
        kind = kinds[name]
        if kind is bool:
            settings[name] = value.lower() in ("true", "yes")
        else:
            settings[name] = value if get_args(kind) else kind(value)
    return settings
