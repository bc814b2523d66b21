"""What a mix of real and synthetic images can be asked for: modes, shares, weights, limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from math import inf
from typing import Any, NamedTuple

from mammo.data.counts import exact, round_half_up
from mammo.errors import ConfigError
from mammo.registry import Registry

MIXES = Registry("mix_mode")
BALANCES = ("keep", "equal")
SHORTAGES = ("error", "clamp")
TRIMS = ("first", "random")


class Quota(NamedTuple):
    """Images of one class to take."""

    real: int
    synthetic: int


@MIXES.register("replace")
def replacing(count: int, f: Fraction, m: Fraction) -> Quota:
    """Keep the share `f` of `count` real images and replace the others, one for one."""
    real = round_half_up(f * count)
    return Quota(real, count - real)


@MIXES.register("append")
def appending(count: int, f: Fraction, m: Fraction) -> Quota:
    """Keep the share `f` of `count` real images, add `m` synthetic ones each (f = 0: for all)."""
    real = round_half_up(f * count)
    return Quota(real, round_half_up(m * (real if f else count)))


@MIXES.register("target_share")
def target_share(count: int, f: Fraction, m: Fraction) -> Quota:
    """Keep all `count` real images and add synthetic ones until the real share is `f`."""
    return Quota(count, round_half_up(count * (1 - f) / f))


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """The settings of a mix; what each means stands in the docstring of the step `mix`."""

    real_percentage: float = 1.0
    class_real_percentage: str = ""
    mix_mode: str = "replace"
    synthetic_multiplier: float = 1.0
    balance: str = "keep"
    majority_to_minority_ratio: float = 0.0
    samples_per_class: int = 0
    synthetic_per_class: int = 0
    trim: str = "first"
    synthetic_weights: str = ""
    on_shortage: str = "error"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "MixSettings":
        """Those among the settings of a step."""
        return cls(**{name: settings[name] for name in MIXING})

    @property
    def thins_real(self) -> bool:
        """Whether they choose among real images alone, too."""
        return bool(self.majority_to_minority_ratio or self.samples_per_class)

    def shares(self, class_names: Sequence[str]) -> dict[str, Fraction]:
        """real_percentage of each class."""
        own = _numbers("class_real_percentage", self.class_real_percentage)
        unknown = sorted(set(own) - set(class_names))
        if unknown:
            raise ConfigError(
                f"class_real_percentage names class {unknown[0]!r}; "
                f"the classes are {', '.join(class_names)}"
            )
        common = exact(self.real_percentage)
        return {name: own.get(name, common) for name in class_names}

    def weights(self) -> list[Fraction]:
        """Weight of each synthetic dataset; empty where they are one pool."""
        parts = [part.strip() for part in self.synthetic_weights.split(",")]
        if parts == [""]:
            return []
        weights = [_number(part) for part in parts]
        if not all(weights):
            raise ConfigError(
                f"synthetic_weights {self.synthetic_weights!r}: give a number above 0 for each "
                "synthetic dataset, as 0.7,0.3"
            )
        return [weight for weight in weights if weight]

    def real_part(self, f: Fraction) -> Fraction:
        """Part of a class that is real where samples_per_class sets its size."""
        if self.mix_mode == "append":
            return 1 / (1 + exact(self.synthetic_multiplier)) if f else Fraction(0)
        return f

    def check(self, synthetic: str) -> None:
        """Refuse settings that no data could satisfy, or that would have no effect.

        `synthetic` names the synthetic datasets, with commas between; ConfigError names the
        remedy.
        """
        self._check_words()
        self._check_shares(synthetic)
        self._check_sizes(synthetic)

    def _check_words(self) -> None:
        if self.mix_mode not in MIXES:
            MIXES[self.mix_mode]  # raises with the known names
        for name, known in (("balance", BALANCES), ("on_shortage", SHORTAGES), ("trim", TRIMS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r}; choose {' or '.join(known)}")

    def _check_shares(self, synthetic: str) -> None:
        own = _numbers("class_real_percentage", self.class_real_percentage)
        shares = {"real_percentage": exact(self.real_percentage)}
        shares |= {f"class_real_percentage of {name}": value for name, value in own.items()}
        if self.mix_mode == "target_share" and not all(shares.values()):
            name = next(name for name, value in shares.items() if not value)
            raise ConfigError(
                f"{name} 0 with mix_mode target_share would need infinitely many synthetic "
                "images; use mix_mode replace or append for synthetic images alone"
            )
        if self.mix_mode == "append":
            if not any(shares.values()) and not self.synthetic_multiplier:
                raise ConfigError(
                    "real_percentage 0 and synthetic_multiplier 0 leave no image; raise one of them"
                )
            shares = {"synthetic_multiplier": exact(self.synthetic_multiplier)}
            needed = [name for name, value in shares.items() if value]
        else:
            needed = [name for name, value in shares.items() if value < 1]
        if needed and not synthetic:
            raise ConfigError(
                f"{needed[0]} {float(shares[needed[0]]):g} with mix_mode {self.mix_mode} needs "
                "synthetic images, and synthetic is empty; name a synthetic dataset"
            )

    def _check_sizes(self, synthetic: str) -> None:
        if self.balance == "equal" and not synthetic:
            raise ConfigError(
                "balance equal fills the smaller classes with synthetic images, and synthetic is "
                "empty; name a synthetic dataset, or balance the batches with sampler balanced"
            )
        if 0 < self.majority_to_minority_ratio < 1:
            raise ConfigError(
                f"majority_to_minority_ratio {self.majority_to_minority_ratio:g} would make the "
                "larger classes the smaller ones; give 1 or more, or 0 for no limit"
            )
        if self.samples_per_class and (self.balance == "equal" or self.majority_to_minority_ratio):
            raise ConfigError(
                f"samples_per_class {self.samples_per_class} makes all classes equal; leave "
                "balance and majority_to_minority_ratio at their defaults"
            )
        for name in ("synthetic_per_class", "synthetic_weights"):
            if getattr(self, name) and not synthetic:
                raise ConfigError(
                    f"{name} {getattr(self, name)} has no effect while synthetic is empty; "
                    "name a synthetic dataset"
                )
        if self.trim != "first" and not self.synthetic_per_class:
            raise ConfigError(
                f"trim {self.trim} has no effect without synthetic_per_class; give how many"
            )
        weights, sets = self.weights(), sum(map(bool, map(str.strip, synthetic.split(","))))
        if weights and len(weights) != sets:
            raise ConfigError(
                f"synthetic_weights {self.synthetic_weights!r} has {len(weights)} numbers for "
                f"{sets} synthetic datasets; give one for each"
            )


MIXING = tuple(each.name for each in fields(MixSettings))


def _numbers(setting: str, text: str) -> dict[str, Fraction]:
    """Share of each class named in a text as "malignant=0.5,benign=1"."""
    found: dict[str, Fraction] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, number = (each.strip() for each in part.rpartition("="))
        value = _number(number)
        if not name or name in found or value is None or value > 1:
            raise ConfigError(
                f"{setting} {text!r}: {part!r} should be <class>=<0 to 1>, each class once, "
                "as in malignant=0.5,benign=1"
            )
        found[name] = value
    return found


def _number(text: str) -> Fraction | None:
    """A number of at least 0, exact; None where `text` is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return exact(value) if 0 <= value < inf else None
