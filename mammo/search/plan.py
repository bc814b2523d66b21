"""The plan of a study: everything that a worker has to know, kept in the study itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mammo.errors import ConfigError
from mammo.search.objective import Objective, Unit
from mammo.search.space import TRAINING, Space, Value

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
    given: Mapping[str, Any] = field(default_factory=dict)  # for the workers: addresses, limits

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
                said = {
                    kind: "nothing" if key not in of else of[key]
                    for kind, of in (("has", theirs), ("asks for", mine))
                }
                raise ConfigError(
                    f"study {name} has {_told(key)} {said['has']}, this search asks for "
                    f"{said['asks for']}; give another study_name"
                )

    def config(self, chosen: Mapping[str, Any], unit: Unit) -> dict[str, dict[str, Any]]:
        """Settings of each step of a trial for one of its trainings."""
        varied = self.space.by_step(chosen)
        found = {step: {**own, **varied.get(step, {})} for step, own in self.settings.items()}
        for own in found.values():
            own["seed"] = unit.seed
        found[TRAINING] |= {"folds": unit.fold, "seeds": ""}
        if "train_generator" in found:
            found["train_generator"]["fold"] = unit.fold
        return found

    def anchors(self) -> list[dict[str, Value]]:
        """Trials that come first: each real_percentage of ANCHORS with the settings as given."""
        if "real_percentage" not in self.space:
            return []
        shares = self.space["real_percentage"]
        known = shares.grid()
        found = []
        for share in ANCHORS:
            inside = shares.low <= share <= shares.high if known is None else share in known
            if inside:
                given = {
                    each.name: self.settings[each.of_step][each.setting] for each in self.space
                }
                found.append(self.space.canonical({**given, "real_percentage": share}))
        return found

    def dumps(self) -> str:
        said = self.identity() | {
            "search": self.search,
            "pruner": self.pruner,
            "seed": self.seed,
            "given": dict(self.given),
        }
        return json.dumps(said)

    @classmethod
    def loads(cls, text: str) -> "Plan":
        said = json.loads(text)
        return cls(
            space=Space.of(said.pop("space")),
            objective=Objective.of(said.pop("objective")),
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
