"""How a search went on: what was known after each end of a trial."""

from collections import Counter
from collections.abc import Iterator
from statistics import mean, stdev
from typing import TYPE_CHECKING

from mammo.search.objective import Objective
from mammo.search.outcome import candidates_of, measured, ranked
from mammo.search.study import OWN

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

COUNTED = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def history(
    study: "optuna.Study", objective: Objective, *, since: int = 0
) -> Iterator[tuple[int, dict[str, float]]]:
    """How many trials had ended, and what was known then: of every end behind the first `since`."""
    metric, trials = objective.metric, ended(study)
    states = Counter(each.state.name for each in trials[:since])
    for number, trial in enumerate(trials[since:], start=since + 1):
        states[trial.state.name] += 1
        known = {f"trials/{name}": float(states[state]) for state, name in COUNTED.items()}
        tried = measured(trials[:number])
        values = [each.user_attrs[OWN][0] for each in tried]
        if tried:
            best = ranked(candidates_of(tried), objective)[0]
            known |= {f"best/{metric}": best.value, f"trials/{metric}_mean": mean(values)}
        if len(values) > 1:
            known[f"trials/{metric}_sd"] = stdev(values)
        yield number, known


def ended(study: "optuna.Study") -> list["FrozenTrial"]:
    """The trials that are over, in the order of their ends."""
    over = [each for each in study.get_trials(deepcopy=False) if each.state.is_finished()]
    return sorted(over, key=lambda each: (str(each.datetime_complete), each.number))
