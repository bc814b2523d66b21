"""What came out of a study: its trials, the configurations that they tried, the best of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from mammo.search.objective import Objective
from mammo.search.plan import Plan
from mammo.search.queue import WORKER
from mammo.search.study import AGAIN, CHOSEN, ERROR, OWN, UNITS

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.trial import FrozenTrial


# Of a trial's attributes; a worker's name has that of its machine in it, which may name people
UNTOLD = (CHOSEN, AGAIN, OWN, UNITS, WORKER)


@dataclass(frozen=True)
class Candidate:
    """A configuration with complete trials."""

    chosen: Mapping[str, Any]
    values: tuple[float, ...]  # of each goal, the mean over its trials
    trials: tuple[int, ...]  # their numbers; each has seeds of its own

    @property
    def value(self) -> float:
        """Of the first goal, the metric."""
        return self.values[0]


def candidates(study: "optuna.Study") -> list[Candidate]:
    """The configurations that were measured, in the order of their first trials."""
    return candidates_of(measured(study.get_trials(deepcopy=False)))


def candidates_of(trials: "Iterable[FrozenTrial]") -> list[Candidate]:
    """The configurations of `trials` that were measured."""
    found: dict[str, list[FrozenTrial]] = {}
    for each in trials:
        found.setdefault(json.dumps(each.user_attrs[CHOSEN], sort_keys=True), []).append(each)
    return [
        Candidate(
            trials[0].user_attrs[CHOSEN],
            tuple(map(mean, zip(*(each.user_attrs[OWN] for each in trials), strict=True))),
            tuple(each.number for each in trials),
        )
        for trials in found.values()
    ]


def ranked(found: Sequence[Candidate], objective: Objective) -> list[Candidate]:
    """Best first by the metric; of equals the earlier one."""
    sign = -1 if objective.goals[0].maximise else 1
    return sorted(found, key=lambda each: (sign * each.value, each.trials[0]))


def best_first(found: Sequence[Candidate], objective: Objective) -> list[Candidate]:
    """All, by the metric; of several goals those of the front. The first is the winner."""
    return ranked(found, objective) if len(objective.goals) == 1 else front(found, objective)


def front(found: Sequence[Candidate], objective: Objective) -> list[Candidate]:
    """Those that no other is better than in one goal and at least as good in all (Pareto)."""

    def loss(each: Candidate) -> list[float]:
        goals = zip(each.values, objective.goals, strict=True)
        return [-value if goal.maximise else value for value, goal in goals]

    def beats(one: list[float], other: list[float]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    losses = [loss(each) for each in found]
    best = [
        each
        for each, mine in zip(found, losses, strict=True)
        if not any(beats(other, mine) for other in losses)
    ]
    return ranked(best, objective)


def counts(study: "optuna.Study") -> dict[str, float]:
    """Finished trials by state."""
    from optuna.trial import TrialState

    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {
        "trials/complete": float(states.count(TrialState.COMPLETE)),
        "trials/pruned": float(states.count(TrialState.PRUNED)),
        "trials/failed": float(states.count(TrialState.FAIL)),
    }


def errors(study: "optuna.Study") -> dict[str, int]:
    """Why trials failed, and how many did so, the most frequent reason first."""
    found: dict[str, int] = {}
    for each in study.get_trials(deepcopy=False):
        if ERROR in each.user_attrs:
            found[each.user_attrs[ERROR]] = found.get(each.user_attrs[ERROR], 0) + 1
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def trials_table(study: "optuna.Study", plan: Plan) -> "pd.DataFrame":
    """One row a trial: how it ended, what it measured by itself, its settings."""
    import pandas as pd

    rows = []
    names = [each.name for each in plan.space]
    for each in study.get_trials(deepcopy=False):
        own = each.user_attrs.get(OWN, [float("nan")] * len(plan.objective.goals))
        row: dict[str, Any] = {"trial": each.number, "state": each.state.name.lower()}
        row |= {goal.name: value for goal, value in zip(plan.objective.goals, own, strict=True)}
        if each.duration is not None:
            row["seconds"] = round(each.duration.total_seconds(), 1)
        units = plan.objective.units(int(each.user_attrs.get(AGAIN, 0)))
        row["seeds"] = " ".join(map(str, sorted({unit.seed for unit in units})))
        chosen = each.user_attrs.get(CHOSEN, {})
        row |= {name: chosen.get(name) for name in names}
        row |= {
            name: value
            for name, value in each.user_attrs.items()
            if name not in UNTOLD and isinstance(value, str | int | float)
        }
        rows.append(row)
    return pd.DataFrame(rows)


def measured(trials: "Iterable[FrozenTrial]") -> "list[FrozenTrial]":
    """Those that came to their end."""
    return [each for each in trials if each.state.name == "COMPLETE" and OWN in each.user_attrs]
