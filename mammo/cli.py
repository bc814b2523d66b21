"""Typed command lines from the signatures of the steps; a user's error is one line and exit 2."""

import argparse
import importlib
import inspect
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from mammo import driver
from mammo.commands import COMMANDS
from mammo.errors import ConfigError, MammoError
from mammo.mistakes import explain
from mammo.run import Stopped

_AGAIN_S = 0.05  # until a stop that was dropped comes again
_DEEPEST = 10  # levels of a config; main's settings have two
PRESETS = Path(__file__).parent / "presets"  # published settings, as files for --config
USAGE = "usage: mammo ENTRY [--name value ...]     (mammo ENTRY --help shows the settings)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mammo ENTRY …`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {step:17} {_headline(driver.step_module(step))}" for step in driver.STEPS]
        others = [f"  {name:17} {text}" for name, text in COMMANDS.items()]
        print(USAGE, "", "entry points:", *lines, "", "commands:", *others, sep="\n")
        return 0 if arguments else 2
    if arguments[0] in COMMANDS:
        module = importlib.import_module(f"mammo.commands.{arguments[0]}")
        return guarded(arguments[0], lambda: module.command(arguments[1:]))
    if arguments[0] not in driver.STEPS:
        known = ", ".join((*driver.STEPS, *COMMANDS))
        print(f"mammo: unknown entry {arguments[0]!r}; choose one of {known}", file=sys.stderr)
        return 2
    return run_entry(arguments[0], arguments[1:])


def run_entry(step: str, arguments: Sequence[str] | None = None) -> int:
    """Run one entry point with its command line; prints the JSON line when it is done."""

    def work() -> int:
        given = sys.argv[1:] if arguments is None else arguments
        try:
            settings = parse(step, given)
        except ConfigError as error:
            driver.fail_joined(os.environ.pop("MLFLOW_RUN_ID", ""), str(error))
            raise
        line = driver.run_step(step, settings)
        print(json.dumps(line), flush=True)
        return 0

    return guarded(step, work)


def guarded(name: str, work: Any) -> int:
    """Turn what a command raises into an exit code: 0, 2 for a user's mistake, 130/143 stopped."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    # MLflow opens no model that is a pickle, here and in what is started from here
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    logging.getLogger("mammo").setLevel(os.environ.get("MAMMO_LOG", "INFO").upper())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    others = sys.unraisablehook
    sys.unraisablehook = partial(_stop_again, others)
    try:
        return int(work())
    except MammoError as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"{name}: stopped by {stopped}; the same command continues", file=sys.stderr)
        return 128 + stopped.signal
    except SystemExit as asked:  # --help
        return int(asked.code or 0)
    finally:
        sys.unraisablehook = others


def parse(step: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Settings of `step`: a value given that differs from the default, then --config, then default.

    ConfigError says in one line what is wrong.
    """
    parser = make_parser(step)
    kinds, required = _kinds(step)
    config = _config_of(arguments)
    filed = _file_arguments(_file_of(config)) if config else []
    try:
        settings = _parsed(parser, [*filed, *arguments])
    except ConfigError as error:
        raise ConfigError(explain([*filed, *arguments], kinds, required) or str(error)) from None
    if filed:
        standard = _flatten(parser.get_defaults().as_dict())
        from_file = _flatten(_parsed(parser, [*arguments, *filed]))
        merged = {
            name: from_file[name] if value == standard.get(name) else value
            for name, value in _flatten(settings).items()
        }
        settings = _nest(merged)
    settings.pop("config")
    return settings


def _config_of(arguments: Sequence[str]) -> str:
    """The value of --config; empty for none, and where it lacks its value, which is told later."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config", default="")
    try:
        return str(finder.parse_known_args(list(arguments))[0].config)
    except argparse.ArgumentError:
        return ""


def make_parser(step: str) -> Any:
    """The jsonargparse parser of a step, from the signature and docstring of its `run`."""
    from jsonargparse import ArgumentParser

    module = driver.step_module(step)
    parser = ArgumentParser(
        prog=f"mammo {step}",
        description=_headline(module),
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=str, default="", help="YAML file of settings, or a preset")
    where = "where to run: local, slurm, or none, which prints the commands"
    parser.add_argument("--launcher", type=str, default="local", help=where)
    cluster = "profile of paths and Slurm settings: a YAML file, or a name in mammo/profiles"
    parser.add_argument("--cluster", type=str, default="", help=cluster)
    parser.add_argument("--run_name", type=str, default="", help="name of the run in MLflow")
    reuse = "return a finished run of the same settings, inputs and code"
    parser.add_argument("--reuse", type=bool, default=True, help=reuse)
    offline = "record in the work folder alone; mammo sync sends it"
    parser.add_argument("--offline", type=bool, default=False, help=offline)
    work = "work folder (default: MAMMO_HOME or .mammo)"
    parser.add_argument("--work_dir", type=str, default="", help=work)
    for group, function, skip in _functions(step):
        parser.add_function_arguments(function, group or None, skip=skip, as_group=bool(group))
    for name, value in _without_effect(step).items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help="no effect here")
    return parser


def _without_effect(step: str) -> dict[str, Any]:
    """Defaults of the settings that every entry point takes and this one has no use for."""
    used = inspect.signature(driver.step_module(step).run).parameters
    return {name: value for name, value in driver.EVERYWHERE.items() if name not in used}


def _functions(step: str) -> Iterator[tuple[str, Any, set[int | str]]]:
    """The functions whose parameters are the settings: their prefix, they, what is left out."""
    module = driver.step_module(step)
    yield "", module.run, {"tracked", "step_settings"}
    for name, other in getattr(module, "NESTED", {}).items():
        wired = getattr(module, "WIRED", {}).get(name, ())
        yield name, driver.step_module(other).run, {"tracked", "step_settings", "seed", *wired}


def _kinds(step: str) -> tuple[dict[str, Any], list[str]]:
    """The type of every setting of a step, and the names of those that must be given."""
    kinds: dict[str, Any] = {name: type(value) for name, value in driver.COMMON.items()}
    kinds |= {name: type(value) for name, value in _without_effect(step).items()}
    kinds["config"] = str
    required = []
    for group, function, skip in _functions(step):
        for name, each in inspect.signature(function).parameters.items():
            if name not in skip:
                full = f"{group}.{name}" if group else name
                kinds[full] = each.annotation
                required += [full] if each.default is inspect.Parameter.empty else []
    return kinds, required


def _parsed(parser: Any, arguments: list[str]) -> dict[str, Any]:
    from jsonargparse import ArgumentError

    try:
        return _plain(parser.parse_args(arguments).as_dict())
    except ArgumentError as error:
        raise ConfigError(one_line(str(error))) from None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as int, float, str and bool: a number with a range is a class of its own."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            plain[name] = _plain(value)
        else:
            kind = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
            plain[name] = kind(value) if kind else value
    return plain


def _file_of(config: str) -> Path:
    """The file that `config` names: a path or, where there is none, a preset: "u24", say.

    "presets/u24.yaml" names it too, wherever one stands: so say the presets themselves.
    """
    path = Path(config)
    if path.exists() or config not in (path.stem, f"presets/{path.stem}.yaml"):
        return path
    presets = {each.stem: each for each in sorted(PRESETS.glob("*.yaml"))}
    if path.stem not in presets:
        raise ConfigError(
            f"config {config} is no file here and no preset; give a YAML file of settings, or one "
            f"of {', '.join(presets)}"
        )
    return presets[path.stem]


def _file_arguments(path: Path) -> list[str]:
    """The settings in a YAML file as command-line arguments."""
    import yaml

    if path.exists() and not path.is_file():  # a pipe would never end
        raise ConfigError(f"config {path} is no file; give a YAML file of settings")
    try:
        text = path.read_text()
        _check_plain(yaml.parse(text, yaml.SafeLoader), path)
        content = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: no text, or no number or date
        raise ConfigError(f"config {path} is not YAML: {one_line(str(error))[:300]}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"config {path} is not a mapping of settings to values")
    flat = _flatten(dict(content))
    wrong = [name for name, value in flat.items() if isinstance(value, list | set | bytes)]
    if wrong:
        raise ConfigError(
            f"config {path}: {str(wrong[0])[:60]} is a list or an object; give a number or a text"
        )
    return [f"--{name}={_as_argument(value)}" for name, value in flat.items() if name != "config"]


def _check_plain(events: Iterable[Any], path: Path) -> None:
    """Refuse what no setting needs: ten lines of aliases unpack to a billion values."""
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"config {path} has an alias (*name); write the value out")
        if depth > _DEEPEST:
            raise ConfigError(f"config {path} is nested too deep to be a mapping of settings")


def one_line(text: str) -> str:
    """The part of a parser's message that says what is wrong, on one line."""
    return " ".join(text.split())


def _as_argument(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return nested


def _headline(module: ModuleType) -> str:
    return (inspect.getdoc(module.run) or "").splitlines()[0]


def _stop(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not cut the saving short
    raise Stopped(number)


def _stop_again(others: Callable[[Any], object], dropped: Any) -> None:
    """Bring back a stop that came in a destructor or a weak reference's end.

    Python drops what is raised there, and the process would go on, deaf to the signal.
    """
    if not isinstance(dropped.exc_value, Stopped):
        others(dropped)
        return
    number = dropped.exc_value.signal
    signal.signal(number, _stop)
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


if __name__ == "__main__":
    sys.exit(main())
