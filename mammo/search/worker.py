"""A worker: takes trials of a study, has each carried out, and tells the study how it ended."""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mammo.run import Pruned, Stopped
from mammo.search.ending import Ending
from mammo.search.objective import GPU_HOURS
from mammo.search.plan import Plan
from mammo.search.queue import BEAT_S, Queue, uninterrupted, worker_id
from mammo.search.space import TRAINING, name_of
from mammo.search.start import Start
from mammo.search.storage import in_plain_words, reason_of, storage_errors
from mammo.search.study import Progress, Proposal, propose
from mammo.search.trial import Message, Trials

if TYPE_CHECKING:
    import optuna

LOG = logging.getLogger("mammo")
RUN, SPENT, BATCH = "run_id", "hours", "batch_size"  # attributes of a trial
_POLL_S = 1.0  # between looks at the clock while a trial goes on
_AWAY_S = 300.0  # that a storage may be away
_LAST_S = 1.0  # between looks at the trials that others work on


@dataclass
class Worker:
    """One taker of trials. `told` is called after each end, and whenever nothing is to do."""

    study: "optuna.Study"
    plan: Plan
    start: Start
    trials: Trials
    told: Callable[[], None] = lambda: None
    most: int = 0  # trials to take; 0 for any
    name: str = field(default_factory=worker_id)

    def __post_init__(self) -> None:
        self._queue = Queue(self.study)
        self._done = 0  # trials that ended here
        self._number = -1  # of the trial that goes on
        self._beat = 0.0
        self._deadline = self.start.deadline(self.study)

    def work(self, *, to_the_end: bool = False) -> int:
        """Take trials until none waits; returns how many ended here.

        `to_the_end` waits for those that others work on too, and takes up those of the dead.
        """
        self._say()
        try:
            while True:
                try:
                    if not self._step(to_the_end=to_the_end):
                        break
                except storage_errors() as error:
                    self._wait_for_storage(error)
        except Stopped:
            with uninterrupted(), suppress(*storage_errors()):
                self._queue.give_back(self.name)
            raise
        finally:
            self._number = -1
            with suppress(*storage_errors()):
                self._say(over=True)
            self.trials.close()
        return self._done

    @property
    def is_over(self) -> bool:
        """Whether it begins no further trial."""
        return time.time() > self._deadline or 0 < self.most <= self._done

    def _step(self, *, to_the_end: bool) -> bool:
        """Do a trial, or wait a little; False where nothing is left to do."""
        self._queue.recover()
        trial = None if self.is_over else self._queue.take(self.name)
        if trial is not None:
            self._carry_out(trial)
            self.told()
            return True
        if not (to_the_end and self._queue.goes_on):
            return False
        self.told()
        time.sleep(_LAST_S)
        return True

    def _wait_for_storage(self, error: Exception) -> None:
        """Wait until the storage answers again; a trial that was cut off waits to go on."""
        LOG.warning("tune: the storage of the study does not answer: %s", reason_of(error))
        deadline = time.monotonic() + _AWAY_S
        while True:
            time.sleep(_LAST_S)
            late, name = time.monotonic() > deadline, self.study.study_name
            with in_plain_words(name) if late else suppress(*storage_errors()):
                self._queue.give_back(self.name)
                return

    def _carry_out(self, trial: "optuna.Trial") -> None:
        """Have one trial done; one that is cut short is as it was, for `work` to give back."""
        from optuna.exceptions import UpdateFinishedTrialError

        began, spent = time.monotonic(), float(trial.user_attrs.get(SPENT, 0.0))
        self._number = trial.number
        try:
            self._say()
            proposal = propose(self.study, self.plan, trial)
            LOG.info("tune: trial %d: %s", trial.number, dict(proposal.chosen))
            ending = self._attended(proposal)
        except UpdateFinishedTrialError:  # by another worker, who took this one for dead
            self.trials.stop()
        except BaseException:
            with uninterrupted():
                self.trials.stop()  # first: nobody is to take it while its process lives
                with suppress(*storage_errors()):
                    if self._queue.is_held(trial._trial_id, self.name):
                        trial.set_user_attr(SPENT, spent + _hours_since(began))
            raise
        with uninterrupted():
            if not self._queue.is_held(trial._trial_id, self.name):
                LOG.warning("tune: trial %d has gone to another worker", trial.number)
                return
            ending.tell(self.study, self.plan, proposal, spent + _hours_since(began))
        self._done += 1
        self._bury(ending)

    def _attended(self, proposal: Proposal) -> "Ending":
        """Have a trial done until it ends for good; once more where memory ran out."""
        order = self._order(proposal)
        while True:
            ending = self._once(proposal, order)
            if not (ending.memory and self.start.halve_batch and _halved(order, ending.memory)):
                return ending
            size = order["trainings"][0]["settings"][ending.memory][BATCH]
            LOG.warning("tune: trial %d again with batch_size %d", proposal.number, size)
            proposal.trial.set_user_attr(name_of(ending.memory, BATCH), size)

    def _once(self, proposal: Proposal, order: Mapping[str, Any]) -> "Ending":
        progress, ending = Progress(self.plan, proposal), Ending()
        self.trials.start(order)
        while True:
            message = self.trials.receive(_POLL_S)
            if time.monotonic() - self._beat > BEAT_S and not self._still_holds(proposal):
                self.trials.stop()
                return ending
            if message is None:
                continue
            if "end" in message:
                ending.code = int(message["end"])
                if ending.stopped:  # it heard a signal that is about to come here too
                    raise Stopped(ending.stopped)
                return ending
            if "run" in message:
                if not ending.runs:
                    proposal.trial.set_user_attr(RUN, message["run"])
                ending.runs.append(message["run"])
            elif not ending.take(message):
                self.trials.answer(go=_goes_on(progress, message))

    def _bury(self, ending: "Ending") -> None:
        """Have the runs ended of a trial whose process could not do so."""
        if ending.crash and ending.runs:
            said = {"bury": ending.runs, "error": ending.crash}
            self.trials.start({**said, "work": self.start.work, "offline": self.start.offline})
            while not (message := self.trials.receive(_POLL_S)) or "end" not in message:
                pass

    def _still_holds(self, proposal: Proposal) -> bool:
        """Beat the trial's heart; False where another has it."""
        trial_id = proposal.trial._trial_id
        if not self._queue.is_held(trial_id, self.name):
            return False
        self._queue.beat(trial_id)
        self._say()
        return True

    def _order(self, proposal: Proposal) -> dict[str, Any]:
        """What the process of a trial is told."""
        apart, trainings, known = self.start.apart, [], proposal.trial.user_attrs
        for unit in proposal.units:
            steps = self.plan.config(proposal.chosen, unit)
            settings = {
                step: {**apart.get(step, {}), **own, **batch_that_fits(step, known)}
                for step, own in steps.items()
            }
            if GPU_HOURS in [each.name for each in self.plan.objective.goals]:
                settings[TRAINING]["reuse"] = False  # one that another search has done took no time
            trainings.append({"name": unit.name, "settings": settings})
        return {
            "name": f"{'finalist' if self.plan.only else 'trial'}_{proposal.number}",
            "chosen": dict(proposal.chosen),
            "metric": self.plan.objective.metric,
            "trainings": trainings,
            "run_id": self.start.run_id,
            "folder": self.start.folder,
            "work": self.start.work,
            "offline": self.start.offline,
            "reuse": self.start.reuse,
        }

    def _say(self, *, over: bool = False) -> None:
        """Leave word in the study of who works on what, for `mammo status`."""
        self._beat = time.monotonic()
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "job": _job(),
            "beat": time.time(),
            "trial": self._number,
            "done": self._done,
            "over": over,
        }
        self.study.set_user_attr(f"mammo.worker.{self.name}", about)


def _job() -> str:
    """The job of Slurm that this is, empty for none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def _hours_since(began: float) -> float:
    return (time.monotonic() - began) / 3600


def _goes_on(progress: Progress, message: Message) -> bool:
    """Whether a trial that reports may go on."""
    try:
        if "training" in message:
            progress.training(message["training"])
        else:
            progress.epoch(message["epoch"], message["step"])
    except Pruned:
        return False
    return True


def batch_that_fits(step: str, attributes: Mapping[str, Any]) -> dict[str, int]:
    """The batch_size of a step for which a trial with `attributes` had memory, if it was halved."""
    name = name_of(step, BATCH)
    return {BATCH: int(attributes[name])} if name in attributes else {}


def _halved(order: Mapping[str, Any], step: str) -> bool:
    """Halve the batch of a step in all trainings; False where it is 1 already."""
    for training in order["trainings"]:
        settings = training["settings"].get(step, {})
        if int(settings.get(BATCH, 1)) < 2:
            return False
        settings[BATCH] = int(settings[BATCH]) // 2
    return True
