"""The plan of a study: everything that a worker has to know, kept in the study itself."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mammo.errors import ConfigError
from mammo.search.objective import Objective, Unit
from mammo.search.space import TRAINING, Dimension, Space
from mammo.seeds import derive

EPOCHS = ("subset_epochs", "epochs", "real_epochs")  # of the phases of a training
REAL = "real_percentage"
ANCHORS = (1.0, 0.5, 0.0, 0.25)  # of real_percentage: baselines that every search contains


@dataclass(frozen=True)
class Plan:
    """What is searched, by what, on what; and how its workers do it."""

    space: Space
    objective: Objective
    inputs: Mapping[str, str]  # digest of each dataset or model by its setting
    settings: Mapping[str, Mapping[str, Any]]  # of each step that a trial runs, what varies aside
    search: str = "tpe"
    pruner: str = "median"
    seed: int = 0
    only: tuple[Mapping[str, Any], ...] = ()  # configurations to run; empty for what is proposed

    def identity(self) -> dict[str, Any]:
        """What trials of one study have in common; the rest may differ from start to start."""
        return {
            "space": self.space.described(),
            "objective": self.objective.described(),
            "inputs": dict(self.inputs),
            "settings": {step: dict(own) for step, own in self.settings.items()},
        }

    def refuse_other(self, other: "Plan", name: str) -> None:
        """Refuse to join the study `name` of plan `other`, and say what differs."""
        mine, theirs = _flat(self.identity()), _flat(other.identity())
        for key in [*theirs, *mine]:
            if mine.get(key) != theirs.get(key):
                raise ConfigError(
                    f"study {name} has {_told(key)} {theirs.get(key, 'none')}, this search has "
                    f"{mine.get(key, 'none')}; give another study_name, or the same settings"
                )

    def config(self, chosen: Mapping[str, Any], unit: Unit) -> dict[str, dict[str, Any]]:
        """Settings of each step of a trial for one of its trainings.

        The seed is the classifier's alone: generators and images are made once for all of them.
        """
        varied = self.space.by_step(chosen)
        found = {step: {**own, **varied.get(step, {})} for step, own in self.settings.items()}
        found[TRAINING] |= {"folds": unit.fold, "seed": unit.seed, "seeds": ""}
        if unit.fold != "none":  # what scores a fold is not what chooses on it
            found[TRAINING]["score_fold"] = False
        if "train_generator" in found:
            found["train_generator"]["fold"] = unit.fold
        return found

    @property
    def reports(self) -> int:
        """The most that a trial tells a pruner: of its trainings, or of the epochs of one."""
        trainings = len(self.objective.units())
        if trainings > 1:
            return trainings
        given = self.settings[TRAINING]
        ends = {name: self.space[name].ends() for name in EPOCHS if name in self.space}
        return max(1, sum(int(max(ends.get(name, (given.get(name, 0),)))) for name in EPOCHS))

    @property
    def listed(self) -> bool:
        """Whether the study has no configurations but those that it begins with."""
        return bool(self.only) or self.search == "grid"

    def first(self) -> list[dict[str, Any]]:
        """The configurations that a study begins with: anchors; of a grid its other points too."""
        if self.only:
            return [dict(each) for each in self.only]
        found = self.anchors()
        if self.search == "grid":
            points = list(self.space.configurations(lambda each: each.grid() or ()))
            random.Random(derive(self.seed, "grid")).shuffle(points)
            return [each for each in found if each in points] + [
                each for each in points if each not in found
            ]
        return found

    def anchors(self) -> list[dict[str, Any]]:
        """The settings as given, with each real_percentage of ANCHORS where that varies."""
        given = {each.name: each.near(self._given(each)) for each in self.space}
        if REAL not in self.space.canonical(given):
            return [self.space.canonical(given)]
        shares = self.space[REAL]
        inside = [share for share in ANCHORS if shares.near(share) == share]
        return [self.space.canonical({**given, REAL: share}) for share in inside]

    @property
    def baseline(self) -> dict[str, Any] | None:
        """The first anchor where it is one without synthetic images, if their share varies."""
        first = next(iter(self.anchors()), None)
        return first if first is not None and first.get(REAL, 1.0) == 1.0 else None

    def _given(self, dimension: Dimension) -> Any:
        return self.settings[dimension.of_step][dimension.setting]

    def dumps(self) -> str:
        said = self.identity() | {
            "search": self.search,
            "pruner": self.pruner,
            "seed": self.seed,
            "only": [dict(each) for each in self.only],
        }
        return json.dumps(said)

    @classmethod
    def loads(cls, text: str) -> "Plan":
        said = json.loads(text)
        return cls(
            space=Space.of(said.pop("space")),
            objective=Objective.of(said.pop("objective")),
            only=tuple(said.pop("only")),
            **said,
        )


def _flat(said: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The leaves as JSON by their path; a list is one."""
    found: dict[str, str] = {}
    for key, value in said.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = json.dumps(value)
    return found


def _told(key: str) -> str:
    return key.removeprefix("settings.").removeprefix("objective.")
