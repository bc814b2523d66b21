"""The best configurations and the baseline trained again on fresh seeds: what they really give."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from mammo.search.objective import Objective
from mammo.search.outcome import Candidate, best_first, candidates
from mammo.search.plan import Plan
from mammo.search.study import CHOSEN, UNITS

if TYPE_CHECKING:
    import optuna
    import pandas as pd

APART = 10_000  # from the search's seeds to the fresh ones: no repeat of a trial comes so far,
REPEATS = 1000  # of these, each a span of seeds behind the other


@dataclass(frozen=True)
class Rerun:
    """A configuration that a search found, and what it gave on fresh seeds."""

    candidate: Candidate
    values: tuple[float, ...]  # of the metric, one a fresh seed: each the mean over the folds
    maximise: bool
    winner: bool = False  # the search had it for its best
    baseline: bool = False  # it is the settings as given, on real images alone where they vary

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def sd(self) -> float | None:
        """Over the fresh seeds; None of one."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def curse(self) -> float:
        """How much too good the search made it look: searched value minus re-run mean.

        Choosing the best of noisy values picks the lucky ones, so on average this is positive,
        the more so the more were tried (winner's curse; Smith and Winkler 2006, "The optimizer's
        curse", Management Science 52(3), equation 1). Where less is better the sign is turned, so
        that positive is always too good. The validation patients are those of the search, so what
        came of choosing on them is not in it.
        """
        gap = self.candidate.value - self.mean
        return gap if self.maximise else -gap


def finalist_name(study_name: str, plan: Plan) -> str:
    """Name of the study of finalists by `plan`: a search that went on may have others."""
    asked = json.dumps([[dict(each) for each in plan.only], plan.objective.seeds])
    return f"{study_name}-finalists-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def fresh_seeds(objective: Objective, count: int) -> tuple[int, ...]:
    """Seeds that no trial of the search has."""
    first = max(objective.seeds) + max(APART, REPEATS * objective.span)
    return tuple(first + number for number in range(count))


def finalist_plan(study: "optuna.Study", plan: Plan, *, finalists: int, seeds: int) -> Plan:
    """The plan by which the best `finalists` are trained again, each on `seeds` fresh seeds.

    They are a study of their own, that the same workers work on. Of several goals they are the
    first ones of the Pareto front. The baseline comes along, for a gain is one over something.
    """
    found = candidates(study)
    chosen = [dict(each.chosen) for each in best_first(found, plan.objective)[:finalists]]
    base = next((dict(each.chosen) for each in found if each.chosen == plan.baseline), None)
    if base is not None and base not in chosen:
        chosen.append(base)
    return replace(
        plan,
        objective=replace(plan.objective, seeds=fresh_seeds(plan.objective, seeds)),
        pruner="none",
        only=tuple(chosen),
    )


def reruns(
    study: "optuna.Study", plan: Plan, again: "optuna.Study", again_plan: Plan
) -> list[Rerun]:
    """What the finalists gave in the study `again`, the best re-run mean first."""
    from optuna.trial import TrialState

    goal = plan.objective.goals[0]
    units = again_plan.objective.units()
    searched = candidates(study)
    winner = best_first(searched, plan.objective)[0]
    found = []
    for trial in again.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        candidate = next(each for each in searched if each.chosen == trial.user_attrs[CHOSEN])
        values: dict[int, list[float]] = {}
        for unit, value in zip(units, trial.user_attrs[UNITS], strict=True):
            values.setdefault(unit.seed, []).append(value)
        roles = {"winner": candidate == winner, "baseline": candidate.chosen == plan.baseline}
        found.append(Rerun(candidate, tuple(map(mean, values.values())), goal.maximise, **roles))
    return sorted(found, key=lambda each: -each.mean if goal.maximise else each.mean)


def winners_curse(found: Sequence[Rerun], metric: str) -> dict[str, float]:
    """Metrics of the search's winner, trained again."""
    winner = winner_of(found)
    if winner is None:
        return {}
    said = {
        f"winner/{metric}_searched": winner.candidate.value,
        f"winner/{metric}_mean": winner.mean,
        f"winner/{metric}_curse": winner.curse,
    }
    if winner.sd is not None:
        said[f"winner/{metric}_sd"] = winner.sd
    gain = gain_of(found)
    if gain is not None:
        said |= {f"baseline/{metric}_mean": gain.baseline.mean, f"winner/{metric}_gain": gain.mean}
        if gain.sd is not None:
            said |= {f"winner/{metric}_gain_sd": gain.sd}
    return said


@dataclass(frozen=True)
class Gain:
    """What the search's winner gives more than the baseline, paired by their fresh seeds."""

    baseline: Rerun
    values: tuple[float, ...]  # one a seed; positive is better

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def sd(self) -> float | None:
        """Over the fresh seeds; None of one."""
        return stdev(self.values) if len(self.values) > 1 else None


def gain_of(found: Sequence[Rerun]) -> Gain | None:
    """None where the baseline was not trained again, or is the winner."""
    winner = winner_of(found)
    base = next((each for each in found if each.baseline), None)
    if winner is None or base is None or base is winner:
        return None
    sign = 1 if base.maximise else -1
    pairs = zip(winner.values, base.values, strict=True)
    return Gain(base, tuple(sign * (one - other) for one, other in pairs))


def winner_of(found: Sequence[Rerun]) -> Rerun | None:
    """The search's own; None where that was not trained again to its end."""
    return next((each for each in found if each.winner), None)


def finalists_table(found: Sequence[Rerun], metric: str) -> "pd.DataFrame":
    """One row a finalist."""
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {
            "trial": each.candidate.trials[0],
            f"{metric} searched": each.candidate.value,
            f"{metric} re-run": each.mean,
            "sd": each.sd,
            "searched - re-run": each.candidate.value - each.mean,
            "fresh seeds": len(each.values),
            **each.candidate.chosen,
        }
        for each in found
    ]
    return pd.DataFrame(rows)
