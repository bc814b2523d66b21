"""The policy of a promotion: which gates a model goes through, and what each asks."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mammo.errors import ConfigError

KINDS = ("classifier", "generator")
NONE = "none"
ALWAYS = ("manifest",)  # the gate that no policy opens
CHOICES = {
    "leaks.unknown": ("refuse", "allow"),
    "commit.dirty": ("refuse", "allow"),
    "commit.unknown": ("refuse", "allow"),
    "privacy.absent": ("refuse", "allow"),
    "champion.bound": ("bootstrap", "delong"),
}
BOUNDED = {"floors", "calibration"}  # gates whose settings are bounds of metrics
_BOUNDS = "as {min: 0.8}, {max: 0.1} or both"
Settings = dict[str, Any]


@dataclass(frozen=True)
class Policy:
    """Gates in their order with their settings; those switched off are named apart."""

    name: str  # default, none, or the file's name with the start of its sha256
    gates: Mapping[str, Settings]
    off: tuple[str, ...]


def read_policy(path: str) -> dict[str, Any]:
    """What the file says, by gate; ConfigError names what it cannot mean. Empty for the default."""
    if path in ("", NONE):
        return {}
    import yaml

    try:
        said = yaml.safe_load(Path(path).expanduser().read_text())
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigError(f"policy {path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(said, Mapping):
        raise ConfigError(f"policy {path} is not a mapping of gates to what they ask")
    found: dict[str, Any] = {}
    for key, asked in said.items():
        if "/" in str(key):
            found.setdefault("floors", {})[str(key)] = asked
        else:
            found[str(key)] = {**found.get(str(key), {}), **asked} if _maps(asked) else asked
    for gate, asked in found.items():
        _check(path, gate, asked)
    return found


def policy_for(path: str, kind: str) -> Policy:
    """The default policy for a kind of model, with what the file at `path` changes."""
    default = default_of(kind)
    if path == NONE:
        gates = {gate: default[gate] for gate in ALWAYS}
        return Policy(NONE, gates, tuple(each for each in default if each not in gates))
    given = read_policy(path)
    for gate in given:
        if gate not in default:
            raise ConfigError(
                f"policy {path}: gate {gate} is none of a {kind}; it has {', '.join(default)}"
            )
    off = tuple(gate for gate in default if given.get(gate) is False)
    gates = {
        gate: _merged(gate, asked, given.get(gate, {}))
        for gate, asked in default.items()
        if gate not in off
    }
    return Policy(_name(path), gates, off)


def _merged(gate: str, default: Settings, given: Settings) -> Settings:
    """Bounds are taken metric by metric, `false` for one drops it."""
    merged = {**default, **given}
    if gate in BOUNDED:
        return {metric: bounds for metric, bounds in merged.items() if bounds is not False}
    return merged


@cache
def default_of(kind: str) -> dict[str, Settings]:
    """What the policy that mammo ships for a kind of model asks, by gate."""
    import yaml

    said = yaml.safe_load((Path(__file__).parent / f"{kind}.yaml").read_text())
    return {gate: dict(asked) for gate, asked in said.items()}


def _check(path: str, gate: str, asked: Any) -> None:
    gates = list(dict.fromkeys(each for kind in KINDS for each in default_of(kind)))
    if gate not in gates:
        raise ConfigError(f"policy {path}: no gate is called {gate!r}; use {', '.join(gates)}")
    if asked is False and gate not in ALWAYS:
        return
    if not _maps(asked):
        what = "cannot be switched off" if asked is False else f"needs settings, not {asked!r}"
        also = " or false" if asked is not False else ""
        raise ConfigError(f"policy {path}: {gate} {what}; give it a mapping{also}, or leave it out")
    if gate in BOUNDED:
        for metric, bounds in asked.items():
            if bounds is not False:
                _check_bounds(path, metric, bounds)
        return
    defaults = next(default_of(kind)[gate] for kind in KINDS if gate in default_of(kind))
    for name, value in asked.items():
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ConfigError(f"policy {path}: {gate} has no setting {name!r}; it has {known}")
        _check_value(path, f"{gate}.{name}", value, defaults[name])


def _check_value(path: str, name: str, value: Any, default: Any) -> None:
    choices = CHOICES.get(name)
    if choices and value not in choices:
        raise ConfigError(f"policy {path}: {name} is {value!r}; choose {' or '.join(choices)}")
    if isinstance(default, list) and not (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    ):
        raise ConfigError(f"policy {path}: {name} is {value!r}; give a list of names")
    if _maps(default):
        if not _maps(value):
            raise ConfigError(f"policy {path}: {name} is {value!r}; give metrics with their bounds")
        for metric, bounds in value.items():
            _check_bounds(path, metric, bounds)
    if isinstance(default, int | float) and not _is_number(value):
        raise ConfigError(f"policy {path}: {name} is {value!r}, not a number")
    if isinstance(default, int) and (value != int(value) or value < 1):
        raise ConfigError(f"policy {path}: {name} is {value!r}; give a whole number from 1 on")
    if isinstance(default, str) and not isinstance(value, str):
        raise ConfigError(f"policy {path}: {name} is {value!r}; give a text")


def _check_bounds(path: str, metric: str, bounds: Any) -> None:
    if not _maps(bounds) or not bounds or set(bounds) - {"min", "max"}:
        raise ConfigError(f"policy {path}: {metric} is {bounds!r}; give bounds, {_BOUNDS}")
    for bound, value in bounds.items():
        if not _is_number(value):
            raise ConfigError(f"policy {path}: {bound} of {metric} is {value!r}, not a number")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _maps(value: Any) -> bool:
    return isinstance(value, Mapping)


def _name(path: str) -> str:
    if not path:
        return "default"
    place = Path(path).expanduser()
    return f"{place.name} {hashlib.sha256(place.read_bytes()).hexdigest()[:16]}"
