"""`mammo data plan|fetch|export`: public collections, and the layouts of other systems."""

import functools
import importlib
from collections.abc import Callable, Iterable, Sequence

from mammo.commands import call
from mammo.errors import ConfigError

# First word -> module with a function of that name, which yields the lines to print.
ACTIONS = {
    "plan": "mammo.data.collections",
    "fetch": "mammo.data.fetching",
    "export": "mammo.commands.export",
}


def command(arguments: Sequence[str]) -> int:
    """Hand the words after `data` to the function that the first of them names."""
    action = arguments[0] if arguments else "nothing"
    if action in ("-h", "--help"):
        print(f"usage: mammo data {'|'.join(ACTIONS)} ... --help")
        return 0
    if action not in ACTIONS:
        raise ConfigError(f"data {action!r}: give one of {', '.join(ACTIONS)} after it")
    function = getattr(importlib.import_module(ACTIONS[action]), action)
    return call(f"data {action}", _printed(function), arguments[1:])


def _printed(function: Callable[..., Iterable[str]]) -> Callable[..., int]:
    """`function` with the same settings, which prints its lines as they come."""

    @functools.wraps(function)
    def shown(*words: str, **settings: object) -> int:
        for line in function(*words, **settings):
            print(line, flush=True)
        return 0

    return shown
