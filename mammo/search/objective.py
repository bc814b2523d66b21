"""What a trial is measured by: goals over trainings of chosen folds and seeds, never on test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import mean
from typing import Any

from mammo.errors import ConfigError

# Validation metrics, those of the best epoch (best/<name>), and whether more is better.
METRICS = {
    "val/auc": True,
    "val/pr_auc": True,
    "val/balanced_accuracy": True,
    "val/sensitivity": True,
    "val/specificity": True,
    "val/f1": True,
    "val/loss": False,
}
# Further goals: what a trial costs, and how far its own generator's images are from real ones.
GPU_HOURS = "gpu_hours"
COSTS = {"synthetic_share": False, GPU_HOURS: False}
FIDELITY = "val/kid"
FURTHER = METRICS | COSTS | {FIDELITY: False}
OF_GENERATOR = "train_generator/"  # before what the generator of a trial measured
HOURS = "hours"  # for which a training held its device
REAL_SHARE = "realised_real_percentage"  # of the rows trained on, where images were mixed


@dataclass(frozen=True)
class Goal:
    """One number of a trial, and which way is better."""

    name: str
    maximise: bool

    def of(self, measured: Mapping[str, float]) -> float:
        """Its value in what one training measured; nan where it measured none."""
        if self.name == "synthetic_share":
            return 1.0 - measured.get(REAL_SHARE, 1.0)
        if self.name == GPU_HOURS:
            return measured[HOURS]
        if self.name == FIDELITY:
            return measured.get(OF_GENERATOR + FIDELITY, nan)
        return measured.get(f"best/{self.name}", nan)

    @property
    def direction(self) -> str:
        return "maximize" if self.maximise else "minimize"


@dataclass(frozen=True)
class Unit:
    """One training of a trial."""

    fold: str  # "none" for the hold-out, else a fold's number
    seed: int

    @property
    def name(self) -> str:
        return f"seed-{self.seed}" if self.fold == "none" else f"fold-{self.fold}-seed-{self.seed}"


@dataclass(frozen=True)
class Objective:
    """The goals, the metric first, and the trainings that they are averaged over."""

    goals: tuple[Goal, ...]
    folds: tuple[str, ...] = ("none",)
    seeds: tuple[int, ...] = (0,)

    @property
    def metric(self) -> str:
        return self.goals[0].name

    @property
    def directions(self) -> list[str]:
        return [each.direction for each in self.goals]

    @property
    def span(self) -> int:
        """From the seeds of a trial to the next ones of its configuration."""
        return max(self.seeds) - min(self.seeds) + 1

    def units(self, again: int = 0) -> tuple[Unit, ...]:
        """The trainings of a trial; of a configuration proposed `again`, with the next seeds."""
        later = self.span * again
        return tuple(Unit(fold, seed + later) for fold in self.folds for seed in self.seeds)

    def values(self, measured: Sequence[Mapping[str, float]]) -> list[float]:
        """Each goal's mean over the trainings; hours are their sum."""
        found = []
        for goal in self.goals:
            own = [goal.of(each) for each in measured]
            found.append(sum(own) if goal.name == GPU_HOURS else mean(own))
        return found

    def described(self) -> dict[str, Any]:
        """The objective as a mapping that can be written down and compared."""
        return {
            "goals": {each.name: each.direction for each in self.goals},
            "folds": list(self.folds),
            "seeds": list(self.seeds),
        }

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Objective":
        goals = tuple(Goal(name, way == "maximize") for name, way in described["goals"].items())
        return cls(goals, tuple(described["folds"]), tuple(described["seeds"]))


def read_objective(
    metric: str, objectives: str = "", *, folds: Sequence[str] = ("none",), seeds: Sequence[int]
) -> Objective:
    """The goals: `metric`, and those in `objectives`, as "synthetic_share,gpu_hours:down"."""
    if metric not in METRICS:
        known = ", ".join(METRICS)
        raise ConfigError(f"metric {metric!r} cannot be searched; choose one of {known}")
    goals = {metric: Goal(metric, METRICS[metric])}
    for text in filter(None, (each.strip() for each in objectives.split(","))):
        name, _, way = text.partition(":")
        if name not in FURTHER or way not in ("", "up", "down"):
            raise ConfigError(
                f"objectives {text!r} cannot be a goal; choose of {', '.join(FURTHER)}, with "
                ":up or :down where it is to go the other way"
            )
        goals[name] = Goal(name, way == "up" if way else FURTHER[name])
    return Objective(tuple(goals.values()), tuple(folds), tuple(seeds))


def read_folds(text: str, known: Sequence[str] | None) -> tuple[str, ...]:
    """The folds in "none", "all" or "0,1", of the `known` ones of the dataset (None: not known)."""
    if text == "all":
        if known is not None and not known:
            raise ConfigError(
                "folds 'all' is asked of a dataset that has no folds; preprocess it again with "
                "--k_folds 5, or use folds none"
            )
        return tuple(known or ("all",))
    folds = tuple(each.strip() for each in text.split(","))
    if folds == ("none",):
        return folds
    if not all(each.isdecimal() for each in folds):
        raise ConfigError(f"folds {text!r} should be none, all or numbers of folds, as 0,1")
    for fold in folds:
        if folds.count(fold) > 1:
            raise ConfigError(f"folds {text!r} names fold {fold} twice; give each once")
        if known is not None and fold not in known:
            has = ", ".join(known) or "none"
            raise ConfigError(f"folds {text!r} names fold {fold}, the dataset has {has}")
    return folds
