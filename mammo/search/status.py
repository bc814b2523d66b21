"""How a search stands: its trials by state, its workers, the best so far, and the time left."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mammo.search.history import ended
from mammo.search.outcome import candidates, errors, ranked
from mammo.search.plan import Plan
from mammo.search.queue import STALE_S

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")
WORKERS = "mammo.worker."  # attributes of a study, one of each worker
_RECENT = 20  # ends of trials that tell how fast it goes


@dataclass(frozen=True)
class WorkerSeen:
    """A worker by its own last word."""

    host: str
    pid: int
    gpus: str
    job: str  # of Slurm
    silent_s: float  # since that word
    trial: int  # -1 for none
    done: int
    over: bool  # it has left

    @property
    def state(self) -> str:
        if self.over:
            return "left"
        return "lost" if self.silent_s > STALE_S else "works" if self.trial >= 0 else "idle"


@dataclass(frozen=True)
class Status:
    """What can be told of a study at a moment."""

    name: str
    counts: dict[str, int]  # trials by state
    workers: list[WorkerSeen]
    per_hour: float = 0.0  # ends of trials; 0 where fewer than two are known
    left_s: float | None = None  # until no trial is left, at this rate
    metric: str = ""
    best: float | None = None
    best_number: int = -1  # of the first trial of the best configuration
    chosen: dict[str, Any] = field(default_factory=dict)  # that configuration
    errors: list[str] = field(default_factory=list)  # of failed trials, the most frequent first

    @property
    def is_over(self) -> bool:
        return not (self.counts["RUNNING"] or self.counts["WAITING"])


def status_of(study: "optuna.Study", plan: Plan, *, now: float | None = None) -> Status:
    """How `study` stands, at `now` (seconds since 1970)."""
    moment = time.time() if now is None else now
    trials = study.get_trials(deepcopy=False)
    found = Counter(each.state.name for each in trials)
    counts = {state: found[state] for state in STATES}
    per_hour = _rate(ended(study), moment)
    left = counts["RUNNING"] + counts["WAITING"]
    best = next(iter(ranked(candidates(study), plan.objective)), None)
    return Status(
        name=study.study_name,
        counts=counts,
        workers=_workers(study, moment),
        per_hour=per_hour,
        left_s=3600 * left / per_hour if per_hour else None,
        metric=plan.objective.metric,
        best=best.value if best else None,
        best_number=best.trials[0] if best else -1,
        chosen=dict(best.chosen) if best else {},
        errors=list(errors(study))[:3],
    )


def _rate(over: Sequence["FrozenTrial"], now: float) -> float:
    """Ends of trials in an hour, by the last ones; a search that stands still goes slower."""
    ends = [each.datetime_complete for each in over[-_RECENT - 1 :] if each.datetime_complete]
    if len(ends) < 2:
        return 0.0
    last = max(ends[-1], datetime.fromtimestamp(now)) if now else ends[-1]
    pause = (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1)
    # the end that is awaited is late by now, not the others
    late = max(0.0, (last - ends[-1]).total_seconds() - pause)
    seconds = (ends[-1] - ends[0]).total_seconds() + late
    return 3600 * (len(ends) - 1) / seconds if seconds else 0.0


def _workers(study: "optuna.Study", now: float) -> list[WorkerSeen]:
    """All that have left word, those that are there first."""
    found = []
    for key, said in sorted(study.user_attrs.items()):
        if key.startswith(WORKERS):
            told = {name: said[name] for name in ("host", "pid", "gpus", "job", "trial", "done")}
            silent_s = max(0.0, now - float(said["beat"]))
            found.append(WorkerSeen(**told, silent_s=silent_s, over=bool(said["over"])))
    return sorted(found, key=lambda each: (each.over, each.silent_s > STALE_S, each.host, each.pid))
