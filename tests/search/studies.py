"""Studies in memory with a known answer, run trial by trial without any training."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna

from mammo.run import Pruned
from mammo.search.plan import Plan
from mammo.search.study import Progress, complete, found_study, propose, prune

Measure = Callable[[Mapping[str, Any], int], Mapping[str, float]]


def searched(
    plan: Plan, measure: Measure, *, n_trials: int, study: "optuna.Study | None" = None
) -> "optuna.Study":
    """The study after `n_trials` trials; `measure` answers a configuration and a unit's place."""
    if study is None:
        study = found_study("s", optuna.storages.InMemoryStorage(), plan, n_trials=n_trials)
    while len(study.get_trials(states=(optuna.trial.TrialState.WAITING,))):
        proposal = propose(study, plan, study.ask())
        progress, measured = Progress(plan, proposal), []
        try:
            for number, _ in enumerate(proposal.units):
                measured.append(measure(proposal.chosen, number))
                progress.training(measured[-1])
        except Pruned:
            prune(study, proposal.trial)
            continue
        complete(study, plan, proposal, measured)
    return study
