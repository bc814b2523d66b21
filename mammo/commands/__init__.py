"""Commands beside the entry points: they look, fetch and convert, and open no run.

A command is a module here with a function `command(arguments)`, which hands a function of its own
to `call`: positional parameters are the words after the command's name (`*words` are any number
from one on), keyword-only ones the settings `--name value`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from mammo.errors import ConfigError

COMMANDS: Mapping[str, str] = {
    "best": "the best epoch of each training, and the settings that differ, as one table",
    "compare": "classifiers against a baseline over the same folds, seeds and patients",
    "data": "public collections, and the layouts of other systems",
    "doctor": "what is wrong with a dataset, as a page with pictures",
    "gc": "files that no run names, told and on request deleted",
    "lineage": "what a run was made from, and what was made from it",
    "part": "a share of a step, as the launchers of a cluster run it",
    "predict": "what a classifier says of new images, as a CSV",
    "reap": "runs whose process is gone, closed",
    "regenerate": "an image of a sampled dataset again, to the bit",
    "rollback": "give a registered model's alias back to the version that held it before",
    "status": "how a search goes on: its trials, its workers, the best so far, the time left",
    "sync": "what could not be sent to the tracking server, sent",
    "trial": "trials of a search, as a worker has them trained",
    "verify": "whether image files are synthetic ones of mammo, and as they were drawn",
    "withdraw": "all that was made from a patient's images, marked as not to be used any more",
    "worker": "takes trials of a search that goes on, here or anywhere",
}


def call(name: str, function: Callable[..., int], arguments: Sequence[str]) -> int:
    """Call `function` with `arguments`; ConfigError says in one line what is wrong with them."""
    from mammo.mistakes import explain

    words = _words(function)
    kinds = _kinds(function)
    wanted = len(words)
    if _several(function):  # the last word may be given any number of times
        given = [place for place, each in enumerate(arguments) if each.startswith("-")]
        wanted = max(wanted, given[0] if given else len(arguments))
    if {"-h", "--help"} & set(arguments):
        print(usage(name, function))
        return 0
    positional = list(arguments[:wanted])
    there = [each for each in positional if not each.startswith("-")]
    if len(there) < len(words):
        raise ConfigError(
            f"{words[len(there)]} is missing; {usage(name, function).splitlines()[0]}"
        )
    rest = _with_truth(arguments[wanted:], kinds)
    wrong = explain(rest, kinds, [])
    if wrong:
        raise ConfigError(wrong)
    return function(*positional, **_read(rest, kinds))


def folder_of(reference: str, kind: str, setting: str) -> Path:
    """The folder of the dataset or model that `reference` names; a folder needs no store."""
    from mammo.driver import work_folder
    from mammo.references import check_form, resolve

    check_form(reference, kind, setting)
    folder = Path(reference).expanduser()
    about = {"dataset": "dataset.json", "model": "model.json"}[kind]
    if folder.is_dir():
        return folder if (folder / about).is_file() else folder / kind
    from mammo.tracking import Tracking

    return resolve(reference, kind, setting, tracking=Tracking(), work=work_folder("")).path


def usage(name: str, function: Callable[..., int]) -> str:
    """How `function` is called, its docstring, and its settings with their defaults."""
    words = " ".join(word.upper() for word in _words(function))
    words += " ..." if _several(function) else ""
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


def _several(function: Callable[..., int]) -> bool:
    """Whether the last word stands for any number of them, at least one."""
    parameters = inspect.signature(function).parameters.values()
    return any(each.kind is each.VAR_POSITIONAL for each in parameters)


def _kinds(function: Callable[..., int]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.annotation for each in parameters if each.kind is each.KEYWORD_ONLY}


def _with_truth(arguments: Sequence[str], kinds: Mapping[str, Any]) -> list[str]:
    """The arguments with `true` behind each `--name` of yes and no that stands by itself."""
    found: list[str] = []
    for place, token in enumerate(arguments):
        found.append(token)
        alone = place + 1 == len(arguments) or arguments[place + 1].startswith("--")
        if alone and kinds.get(token.removeprefix("--")) is bool and token.startswith("--"):
            found.append("true")
    return found


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
