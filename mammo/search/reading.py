"""Reads a search space from YAML, and refuses what no trial could run, before anything is."""

import inspect
import math
import random
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from mammo.errors import ConfigError, MammoError
from mammo.search.space import TRAINING, TRIAL_STEPS, Dimension, Space, Value, parents_first
from mammo.settings import expected

DEFAULT: dict[str, Any] = {
    "real_percentage": {"low": 0.0, "high": 1.0},
    "loss": ["ce", "bce", "focal"],
    "sampler": ["random", "weighted", "balanced"],
}
KEYS = ("choices", "low", "high", "log", "step", "when")
COMBINATIONS = 300  # settings that the steps are asked about, of more a drawn part
# Settings of the steps that tune sets itself, from its own or from what a trial has made.
OWNED = {
    *(f"{step}.{name}" for step in TRIAL_STEPS for name in ("seed", "device")),
    *(f"train_classifier.{name}" for name in ("data", "synthetic", "folds", "seeds", "score_fold")),
    *("train_generator.data", "train_generator.fold", "sample.generator"),
}
# Settings that do not change what a training computes, and may differ from start to start.
APART = ("device", "workers", "jobs", "upload_minutes", "logger")
_OF_VALIDATION = "trials with different validation patients cannot be compared"
# Settings that a trial may not vary, and why.
FIXED = {
    **{f"{step}.{name}": "trials would not differ" for step in TRIAL_STEPS for name in APART},
    **dict.fromkeys(sorted(OWNED), "tune sets it"),
    "train_classifier.val_fraction": _OF_VALIDATION,
    "train_generator.val_fraction": _OF_VALIDATION,
    "train_classifier.aggregate": "trials would be measured by different yardsticks",
    "train_classifier.overfit": "it is a check and no result",
}


def read_space(path: str, *, synthetic: bool, modules: Mapping[str, ModuleType]) -> Space:
    """The search space in the YAML file `path`, or the default one.

    Each value is checked against the signature of its step among `modules`. Without `synthetic`
    images the default space has no real_percentage: there is nothing to mix.
    """
    said = _content(path) if path else dict(DEFAULT)
    if not path and not synthetic:
        del said["real_percentage"]
    names = [_short(str(name)) for name in said]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"space names {name} twice ({TRAINING}. may be left out); name it once"
            )
    read = {
        name: _dimension(name, values, modules)
        for name, values in zip(names, said.values(), strict=True)
    }
    for each in read.values():
        _check_condition(each, read)
    return Space(parents_first(list(read.values())))


def check_space(
    space: Space, modules: Mapping[str, ModuleType], settings: Mapping[str, Mapping[str, Any]]
) -> None:
    """Ask the steps whether they would take what a trial may propose.

    `settings` are those of each step without a proposal. Ranges are asked about at both ends.
    """
    for chosen in islice(_combinations(space), COMBINATIONS):
        varied = space.by_step(chosen)
        for step in settings:
            own = varied.get(step, {})
            try:
                modules[step].check({**_defaults(modules[step]), **settings[step], **own})
            except MammoError as error:
                raise ConfigError(_refusal(step, own, str(error))) from None


def _refusal(step: str, own: Mapping[str, Any], error: str) -> str:
    """What a step says to settings of its `own` that the search would give it."""
    to_blame = [name for name in own if re.search(rf"\b{name}\b", error)]
    if not to_blame:
        return f"{step}: {error}"
    told = ", ".join(f"{name} {own[name]}" for name in to_blame)
    return (
        f"space: {step} refuses a trial with {told}: {error}; leave it out, or give it a "
        "condition (when)"
    )


def _defaults(module: ModuleType) -> dict[str, Any]:
    """Defaults of a step; a reference that must be given is, once a trial runs."""
    known = inspect.signature(module.run).parameters.values()
    return {
        each.name: "given" if each.default is each.empty else each.default
        for each in known
        if each.kind is each.KEYWORD_ONLY
    }


def _combinations(space: Space) -> Iterator[dict[str, Value]]:
    """Configurations of choices and ends of ranges: all, or drawn ones where there are too many."""
    if math.prod(len(each.ends()) for each in space) > COMBINATIONS:
        draw = random.Random(0)
        while True:
            yield space.canonical({each.name: draw.choice(each.ends()) for each in space})

    yield from space.configurations(Dimension.ends)


def _content(path: str) -> dict[str, Any]:
    import yaml

    try:
        said = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"space {path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(said, dict) or not said:
        raise ConfigError(f"space {path} is not a mapping of settings to choices or ranges")
    return said


def _short(name: str) -> str:
    return name.removeprefix(f"{TRAINING}.")


def _dimension(name: str, values: Any, modules: Mapping[str, ModuleType]) -> Dimension:
    kind = _kind(name, modules)
    said = {"choices": values} if isinstance(values, list) else values
    if not isinstance(said, dict) or not ({"choices"} <= set(said) or {"low", "high"} <= set(said)):
        raise ConfigError(f"space: {name} is {values!r}; give a list or low and high")
    unknown = [str(key) for key in said if key not in KEYS]
    if unknown or ("choices" in said and set(said) - {"choices", "when"}):
        raise ConfigError(
            f"space: {name} is {values!r}; give choices, or low and high with log or step, and when"
        )
    when = _when(name, said.get("when", {}))
    if "choices" in said:
        return Dimension(name, choices=_choices(name, said["choices"], kind), when=when)
    return _range(name, said, kind, when)


def _kind(name: str, modules: Mapping[str, ModuleType]) -> Any:
    """Type of the setting called `name`."""
    step, _, setting = name.rpartition(".")
    step = step or TRAINING
    if step not in modules:
        steps = ", ".join(modules)
        raise ConfigError(f"space: a trial runs no step {step!r} (of {name}); it runs {steps}")
    known = inspect.signature(modules[step].run).parameters
    if setting not in known:
        raise ConfigError(f"space: {setting!r} is no setting of {step}; see mammo {step} --help")
    if f"{step}.{setting}" in FIXED:
        raise ConfigError(f"space: {name} cannot vary: {FIXED[f'{step}.{setting}']}; leave it out")
    return known[setting].annotation


def _choices(name: str, said: Any, kind: Any) -> tuple[Value, ...]:
    if not isinstance(said, list) or not said:
        raise ConfigError(f"space: {name} has no choices; give a list of at least one")
    found = tuple(_fitting(name, value, kind) for value in said)
    for value in found:
        if found.count(value) > 1:
            raise ConfigError(f"space: {name} names {value!r} twice; name each choice once")
    return found


def _range(
    name: str, said: Mapping[str, Any], kind: Any, when: Mapping[str, tuple[Value, ...]]
) -> Dimension:
    if not _is_number(kind):
        raise ConfigError(
            f"space: {name} is no number and has no range; give a list of choices: "
            f"{expected(kind) or 'texts'}"
        )
    whole = issubclass(kind, int)
    low, high = (_fitting(name, said[end], kind) for end in ("low", "high"))
    log, step = said.get("log", False), _number(said.get("step", 0))
    if not isinstance(log, bool) or not _is_finite(step):
        raise ConfigError(f"space: {name} has log {log!r}, step {step!r}; give true and a number")
    if not low < high:  # type: ignore[operator]  # numbers both
        raise ConfigError(f"space: {name} is an empty range from {low} to {high}; give low < high")
    if log and (float(low) <= 0 or step):
        raise ConfigError(f"space: {name} has log, which goes with low above 0 and without step")
    width = float(high) - float(low)
    if step < 0 or step > width or (whole and step != int(step)):
        raise ConfigError(f"space: {name} has step {step}; give one above 0, at most {width:g}")
    if step and abs(width / step - round(width / step)) > 1e-6:
        raise ConfigError(f"space: {name}: steps of {step} from {low} do not end at high {high}")
    return Dimension(
        name, low=float(low), high=float(high), log=log, step=float(step), whole=whole, when=when
    )


def _is_number(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, int | float) and kind is not bool


def _number(value: Any) -> Any:
    """`value`, as a number where it is the text of one: YAML reads 1e-3 as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _fitting(name: str, value: Any, kind: Any) -> Value:
    """`value` as a setting of type `kind` has it."""
    found = _number(value) if _is_number(kind) else value
    plain: type = str
    if kind is bool:
        fits = isinstance(found, bool)
        plain = bool
    elif get_args(kind):
        fits = isinstance(found, str) and found in get_args(kind)
    elif _is_number(kind):
        plain = int if issubclass(kind, int) else float
        fits = _is_finite(found) and plain(found) == found and _in_range(found, kind)
    else:
        fits = isinstance(found, str)
    if not fits:
        wanted = expected(kind) or "a text"
        raise ConfigError(f"space: {name} cannot be {value!r}; give {wanted}")
    result: Value = plain(found)
    return result


def _is_finite(value: Any) -> bool:
    """Whether it is a number, and one that a float can be."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def _in_range(value: float, kind: Any) -> bool:
    try:
        kind(int(value) if issubclass(kind, int) else float(value))
    except ValueError:
        return False
    return True


def _when(name: str, said: Any) -> dict[str, tuple[Value, ...]]:
    if not isinstance(said, dict):
        raise ConfigError(f"space: {name} has when {said!r}; give a mapping, as {{loss: focal}}")
    return {
        _short(str(parent)): tuple(values) if isinstance(values, list) else (values,)
        for parent, values in said.items()
    }


def _check_condition(each: Dimension, read: Mapping[str, Dimension]) -> None:
    """Refuse a condition on a setting that does not vary, or on a value that it never has."""
    for parent, values in each.when.items():
        if parent not in read:
            raise ConfigError(
                f"space: {each.name} has a condition on {parent}, which does not vary; name a "
                "setting of the space"
            )
        known = read[parent].grid()
        if known is None:
            raise ConfigError(
                f"space: {each.name} has a condition on {parent}, a range without a step; name one "
                "with choices"
            )
        if not values or not all(each in known for each in values):
            told = ", ".join(map(str, values)) or "nothing"
            raise ConfigError(
                f"space: {each.name} waits for {parent} {told}; {parent} may be "
                f"{', '.join(map(str, known))}"
            )
