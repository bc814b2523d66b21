"""A study in its storage: made once, joined by who searches the same, its trials taken and told."""

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from statistics import mean
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.run import Pruned
from mammo.search.engines import make_pruner, make_sampler
from mammo.search.objective import Unit
from mammo.search.plan import Plan
from mammo.search.space import Value

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

LOG = logging.getLogger("mammo")
PLAN = "mammo.plan"  # user attribute of a study, written when it is ready
# user attributes of a trial
CHOSEN = "chosen"  # its configuration
AGAIN = "again"  # how often the configuration was proposed before
OWN = "own_values"  # of its own trainings; the trial's value is the mean over the repeats
UNITS = "trainings"  # the metric of each of its trainings
ERROR = "error"
PATIENCE_S = 30.0  # for another process that is making the study


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its configuration, and the trainings that measure it."""

    trial: "optuna.Trial"
    chosen: Mapping[str, Value]
    units: tuple[Unit, ...]

    @property
    def number(self) -> int:
        return int(self.trial.number)


def found_study(
    name: str,
    storage: "optuna.storages.BaseStorage",
    plan: Plan,
    *,
    n_trials: int,
    worker: object = 0,
    patience_s: float = PATIENCE_S,
) -> "optuna.Study":
    """Make the study, with `n_trials` trials that wait, or join the one that is there.

    Of several processes that do so at once, one makes it. One of the same name with another plan
    is refused.
    """
    import optuna

    with suppress(optuna.exceptions.DuplicatedStudyError):
        study = optuna.create_study(
            study_name=name, storage=storage, directions=plan.objective.directions
        )
        _furnish(study, plan, n_trials)
    study = _awaited(name, storage, plan, n_trials, patience_s)
    plan.refuse_other(plan_of(study), name)
    if study.user_attrs[PLAN] != plan.dumps():  # its workers go on with another engine too
        study.set_user_attr(PLAN, plan.dumps())
    return _equipped(study, plan, worker)


def join_study(
    name: str, storage: "optuna.storages.BaseStorage", *, worker: object = 0
) -> tuple["optuna.Study", Plan]:
    """The study called `name`, for a worker that knows nothing else of it."""
    import optuna

    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        known = ", ".join(sorted(optuna.get_all_study_names(storage))) or "none"
        raise ConfigError(f"no study is called {name}; the storage has {known}") from None
    plan = plan_of(study)
    return _equipped(study, plan, worker), plan


def plan_of(study: "optuna.Study") -> Plan:
    text = study.user_attrs.get(PLAN, "")
    if not text:
        raise ConfigError(f"study {study.study_name} was not made by mammo tune; give another name")
    return Plan.loads(text)


def propose(study: "optuna.Study", plan: Plan, trial: "optuna.Trial") -> Proposal:
    """The configuration of a trial that was taken, or that is gone on with after a kill."""
    chosen = plan.space.suggest(trial)
    return Proposal(trial, chosen, plan.objective.units(_claim(study, plan, trial, chosen)))


def complete(
    study: "optuna.Study", plan: Plan, proposal: Proposal, measured: Sequence[Mapping[str, float]]
) -> list[float]:
    """Tell what the trainings measured; returns the values told.

    They are the means over this trial and the finished ones of the same configuration, which had
    other seeds.
    """
    own, goals = plan.objective.values(measured), plan.objective.goals
    wrong = [
        (each.name, value) for each, value in zip(goals, own, strict=True) if not isfinite(value)
    ]
    if wrong:
        fail(study, proposal.trial, ", ".join(f"{name} is {value}" for name, value in wrong))
        return own
    proposal.trial.set_user_attr(OWN, own)
    proposal.trial.set_user_attr(UNITS, [goals[0].of(each) for each in measured])
    earlier = [each.user_attrs[OWN] for each in repeats(study, proposal.chosen)]
    values = [mean(each) for each in zip(own, *earlier, strict=True)]
    study.tell(proposal.trial, values)
    return values


def prune(study: "optuna.Study", trial: "optuna.Trial") -> None:
    from optuna.trial import TrialState

    study.tell(trial, state=TrialState.PRUNED)


def fail(study: "optuna.Study", trial: "optuna.Trial", error: str) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr(ERROR, error)
    study.tell(trial, state=TrialState.FAIL)


def repeats(study: "optuna.Study", chosen: Mapping[str, Any]) -> "list[FrozenTrial]":
    """The complete trials of one configuration."""
    from optuna.trial import TrialState

    complete_ones = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [each for each in complete_ones if each.user_attrs.get(CHOSEN) == dict(chosen)]


class Progress:
    """What a trial reports on its way, so that a pruner can end it: raises Pruned.

    One training reports the metric of each epoch. Of several each reports when it is done, the
    mean so far; for the Wilcoxon pruner, which compares them pair by pair, its own value.
    """

    def __init__(self, plan: Plan, proposal: Proposal) -> None:
        self._goal, self._trainings = plan.objective.goals[0], len(proposal.units)
        self._pairs = plan.pruner == "wilcoxon"
        self._trial = proposal.trial
        self._silent = len(plan.objective.goals) > 1  # Optuna prunes by one objective only
        self._done: list[float] = []
        held = self._trial.study._storage.get_trial(self._trial._trial_id)
        self._reported = set(held.intermediate_values)  # by a worker that died, at first

    def epoch(self, values: Mapping[str, float], step: int | None) -> None:
        """Of a training that goes on."""
        if self._trainings == 1 and step is not None and self._goal.name in values:
            self._report(float(values[self._goal.name]), step)

    def training(self, measured: Mapping[str, float]) -> None:
        """Of a training that is done; after the last one there is nothing left to save."""
        if self._trainings > 1:
            self._done.append(self._goal.of(measured))
            value, count = self._done[-1] if self._pairs else mean(self._done), len(self._done)
            self._report(value, count - 1, last=count == self._trainings)

    def _report(self, value: float, step: int, *, last: bool = False) -> None:
        if self._silent or step in self._reported or not isfinite(value):
            return
        self._reported.add(step)
        self._trial.report(value, step)
        if not last and self._trial.should_prune():
            raise Pruned(f"{self._goal.name} {value:.4f} at {step}")


def fill(study: "optuna.Study", plan: Plan, n_trials: int) -> None:
    """Have `n_trials` trials in all: those of the plan that the study has not, then any others.

    All wait from the start and are only taken, so that as many end as were asked for.
    """
    import optuna

    trials = study.get_trials(deepcopy=False)
    known = [each.user_attrs.get(CHOSEN, each.system_attrs.get("fixed_params")) for each in trials]
    first = iter([each for each in plan.first() if each not in known])
    waiting = optuna.create_trial(state=optuna.trial.TrialState.WAITING)
    for _ in range(len(trials), n_trials):
        if (configuration := next(first, None)) is not None:
            study.enqueue_trial(configuration)
        elif plan.listed:
            return
        else:
            study.add_trial(waiting)


def refuse_fewer(study: "optuna.Study", n_trials: int) -> None:
    """Refuse a start of a study in which more trials wait than are asked for."""
    trials = study.get_trials(deepcopy=False)
    waits = sum(each.state.name == "WAITING" for each in trials)
    if waits and len(trials) > n_trials:
        raise ConfigError(
            f"n_trials {n_trials}: study {study.study_name} has {len(trials)} trials, {waits} of "
            f"which wait; give {len(trials)} or more, or end it with timeout_s"
        )


def _furnish(study: "optuna.Study", plan: Plan, n_trials: int) -> None:
    """Leave the trials and, last, the plan in a new study: it is ready.

    Who goes on after one that died over it adds what is missing.
    """
    import optuna

    fill(study, plan, n_trials)
    with warnings.catch_warnings():  # its dashboard calls the goals by these names
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([each.name for each in plan.objective.goals])
    study.set_user_attr(PLAN, plan.dumps())


def _awaited(
    name: str,
    storage: "optuna.storages.BaseStorage",
    plan: Plan,
    n_trials: int,
    patience_s: float,
) -> "optuna.Study":
    """The study, once who makes it is done; who died over it is stood in for."""
    import optuna
    from optuna.trial import TrialState

    deadline = time.monotonic() + patience_s
    study = optuna.load_study(study_name=name, storage=storage)
    while PLAN not in study.user_attrs and time.monotonic() < deadline:
        time.sleep(0.05)
    if PLAN not in study.user_attrs:
        if any(each.state != TrialState.WAITING for each in study.get_trials(deepcopy=False)):
            plan_of(study)  # of another program: refused
        _furnish(study, plan, n_trials)
    return study


def _equipped(study: "optuna.Study", plan: Plan, worker: object) -> "optuna.Study":
    from optuna.trial import TrialState

    told = sum(each.state != TrialState.WAITING for each in study.get_trials(deepcopy=False))
    study.sampler = make_sampler(plan.search, plan.space, seed=plan.seed, worker=worker, told=told)
    study.pruner = make_pruner(plan.pruner, reports=plan.reports)
    return study


def _claim(
    study: "optuna.Study", plan: Plan, trial: "optuna.Trial", chosen: Mapping[str, Value]
) -> int:
    """How often the configuration was proposed before, a number that no other trial of it has."""
    if AGAIN in trial.user_attrs:  # of a worker that died
        return int(trial.user_attrs[AGAIN])
    trial.set_user_attr(CHOSEN, dict(chosen))
    mine = max(_claims(study, trial, chosen).values(), default=-1) + 1
    trial.set_user_attr(AGAIN, mine)
    if any(plan.space[name].grid() is None for name in chosen):
        return mine  # nobody draws the same number of a range at the same time
    while mine in (others := _claims(study, trial, chosen)).values():
        # of several that claim one at the same time each goes on by a number of its own
        rivals = [number for number, own in others.items() if own == mine]
        mine = max(others.values()) + 1 + sum(number < trial.number for number in rivals)
        trial.set_user_attr(AGAIN, mine)
    return mine


def _claims(
    study: "optuna.Study", trial: "optuna.Trial", chosen: Mapping[str, Value]
) -> dict[int, int]:
    """What the other trials of a configuration have claimed, by their numbers."""
    from optuna.trial import TrialState

    # one that waits was given back, and goes on with the seeds that it had
    states = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
    return {
        each.number: int(each.user_attrs[AGAIN])
        for each in study.get_trials(deepcopy=False, states=states)
        if each.number != trial.number
        and each.user_attrs.get(CHOSEN) == dict(chosen)
        and AGAIN in each.user_attrs
    }
