"""What is asked of a generator: how many images of each class, with which seeds and conditions."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.generators.conditions import Conditions
from mammo.seeds import derive

if TYPE_CHECKING:
    from mammo.models import SavedModel

log = logging.getLogger("mammo")
SEEDS = 1 << 32  # torch keeps 32 bits of a seed
FURTHER = 1 << 25  # from an image's seed to the next one that it is tried with


def parse_counts(counts: str) -> dict[str, int]:
    """Images by class of "benign=500,malignant=500"; empty for an empty text."""
    wanted: dict[str, int] = {}
    for part in filter(None, counts.split(",")):
        name, _, number = part.strip().rpartition("=")
        if not name or not number.isdecimal() or not int(number) or name in wanted:
            raise ConfigError(
                f"counts {counts!r}: {part!r} should be <class>=<images>, at least 1, each class "
                "once, as in benign=500,malignant=500"
            )
        wanted[name] = int(number)
    return wanted


def parse_conditions(text: str) -> dict[str, str]:
    """Values by column of "view=CC,density=C"; a value may hold commas, as a vendor's does."""
    told: dict[str, str] = {}
    for part in filter(None, re.split(r",(?=\s*\w+\s*=)", text)):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not name or not equals or name in told:
            raise ConfigError(
                f"conditions {text!r}: {part!r} should be <column>=<value>, each column once, as "
                "in view=CC,density=C"
            )
        told[name] = value
    if "label" in told:
        raise ConfigError(
            f"conditions {text!r}: the class is no condition here; ask for it with "
            f"counts={told['label']}=<images>"
        )
    return told


def parse_range(text: str, setting: str) -> tuple[float, float]:
    """Two numbers of "low,high", 0 <= low < high <= 1."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = -1.0
    if not 0 <= low < high <= 1:
        raise ConfigError(
            f"{setting} {text!r} should be two numbers from 0 to 1, the lower first, as 0.1,0.8"
        )
    return low, high


def wanted(model: SavedModel, count: int, counts: str) -> dict[str, int]:
    """Images by class, in the order of the class ids; all of classes that `model` has seen."""
    asked = parse_counts(counts) or by_share(count, model.about["train_counts"])
    check_classes(model, asked)
    if model.about["mode"] == "unconditional" and len(asked) > 1:
        raise ConfigError(
            f"an unconditional generator cannot tell {' from '.join(asked)}; name the class that "
            "its images stand for with counts=<class>=<images>, or train with mode=class"
        )
    return {name: asked[name] for name in model.classes.names if name in asked}


def check_classes(model: SavedModel, labels: Mapping[str, Any] | Sequence[str]) -> None:
    """ConfigError when one of `labels` is no class of `model`, or it was shown no image of it."""
    seen = model.about["train_counts"]
    for name in dict.fromkeys(labels):
        if name not in model.classes.names:
            choices = ", ".join(model.classes.names)
            raise ConfigError(f"unknown class {name!r}; choose one of {choices}")
        if not seen[name]:
            known = ", ".join(each for each in model.classes.names if seen[each])
            raise ConfigError(
                f"class {name!r} had no image in the training of this generator, which cannot "
                f"draw it; choose among {known}, or train on images of it"
            )


def by_share(count: int, train_counts: Mapping[str, int]) -> dict[str, int]:
    """Split `count` by the class shares, largest remainder first (Hamilton); empty classes out."""
    total = sum(train_counts.values())
    parts = {name: divmod(count * number, total) for name, number in train_counts.items()}
    missing = count - sum(whole for whole, _ in parts.values())
    # sorted() is stable: equal remainders go by class order
    order = sorted(parts, key=lambda name: -parts[name][1])
    extra = set(order[:missing])
    shares = {name: whole + (name in extra) for name, (whole, _) in parts.items()}
    return {name: number for name, number in shares.items() if number}


def seed_of(label: str, place: int) -> int:
    """Seed of image `place` of a class: classes start far apart, so that they share no noise.

    Within a class seeds follow each other: of 100,000 drawn at random from the 32 bits that torch
    keeps, two would be the same.
    """
    return (derive(0, "sample", label) >> 32) + place  # the start is below 2**31


def further_seed(seed: int, attempt: int) -> int:
    """The seed that an image of `seed` is tried with after `attempt` rejections.

    Far from all first seeds of the class, so that an image that takes the place of a rejected one
    is not also drawn as another place's.
    """
    return (seed + attempt * FURTHER) % SEEDS


@dataclass(frozen=True)
class Told:
    """What is told of an image beside its class: a function of class and seed alone.

    `fixed` values hold for all images; the other columns are drawn together from `combinations`,
    how often each stood in the training rows, so that view, density and vendor go together as
    they did there.
    """

    conditions: Conditions
    combinations: Sequence[Mapping[str, Any]]
    fixed: Mapping[str, str]

    @classmethod
    def by(cls, about: Mapping[str, Any], fixed: Mapping[str, str]) -> Told:
        """Of a generator's model.json; ConfigError for a column or value that it does not know."""
        conditions = Conditions.from_json(about["conditions"])
        for column, value in fixed.items():
            conditions.id_of(column, value)
        return cls(conditions, about["combinations"], dict(fixed))

    @property
    def columns(self) -> tuple[str, ...]:
        """All but the label."""
        return tuple(name for name in self.conditions.columns if name != "label")

    def of(self, label: str, seed: int) -> dict[str, str]:
        """Values by column; "" is not told."""
        if not self.columns:
            return {}
        fitting = self._fitting(label)
        place = derive(0, "conditions", label, seed) % sum(each["count"] for each in fitting)
        for each in fitting:
            place -= each["count"]
            if place < 0:
                return {name: str(each[name]) for name in self.columns} | dict(self.fixed)
        raise AssertionError("a place beyond the last combination")

    def warn(self, labels: Sequence[str]) -> None:
        """Log when the fixed values never stood together in a training image of a class."""
        asked = ", ".join(f"{name}={value}" for name, value in self.fixed.items() if value)
        for label in labels if asked else ():
            if not any(self._has_fixed(each) for each in self._of_class(label)):
                log.warning("no training image of class %s had %s: it is a guess", label, asked)

    def _fitting(self, label: str) -> list[Mapping[str, Any]]:
        mine = self._of_class(label)
        return [each for each in mine if self._has_fixed(each)] or mine

    def _of_class(self, label: str) -> list[Mapping[str, Any]]:
        return [each for each in self.combinations if each["label"] == label]

    def _has_fixed(self, combination: Mapping[str, Any]) -> bool:
        return all(combination[name] == value for name, value in self.fixed.items() if value)
