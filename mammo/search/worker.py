"""A worker: takes trials of a study, has each carried out, and tells the study how it ended."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mammo.run import Pruned, Stopped
from mammo.search.objective import HOURS
from mammo.search.plan import Plan
from mammo.search.queue import BEAT_S, Queue, uninterrupted, worker_id
from mammo.search.start import Start
from mammo.search.study import Progress, Proposal, complete, fail, propose, prune
from mammo.search.trial import Message, Trials

if TYPE_CHECKING:
    import optuna

LOG = logging.getLogger("mammo")
RUN, SPENT, BATCH = "run_id", "hours", "batch_size"  # attributes of a trial
_POLL_S = 1.0  # between looks at the clock while a trial goes on
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
            while not self._is_over():
                self._queue.recover()
                trial = self._queue.take(self.name)
                if trial is not None:
                    self._carry_out(trial)
                    self.told()
                elif to_the_end and self._queue.goes_on:
                    self.told()
                    time.sleep(_LAST_S)
                else:
                    break
        finally:
            self._number = -1
            self._say(over=True)
            self.trials.close()
        return self._done

    def _carry_out(self, trial: "optuna.Trial") -> None:
        """Have one trial done; who is told to stop gives it back."""
        began = time.monotonic()
        self._number = trial.number
        spent = float(trial.user_attrs.get(SPENT, 0.0))
        try:
            self._say()
            proposal = propose(self.study, self.plan, trial)
            LOG.info("tune: trial %d: %s", trial.number, dict(proposal.chosen))
            ending = self._attended(proposal)
        except BaseException:
            with uninterrupted():
                self.trials.stop()
                hours = spent + (time.monotonic() - began) / 3600
                if self._queue.is_held(trial._trial_id, self.name):
                    trial.set_user_attr(SPENT, hours)
                self._queue.give_back(trial._trial_id, self.name)
            raise
        self._bury(ending)
        with uninterrupted():
            if not self._queue.is_held(trial._trial_id, self.name):
                LOG.warning("tune: trial %d has gone to another worker", trial.number)
                return
            ending.tell(self.study, self.plan, proposal, spent + (time.monotonic() - began) / 3600)
        self._done += 1

    def _attended(self, proposal: Proposal) -> "_Ending":
        """Have a trial done until it ends for good; once more where memory ran out."""
        order = self._order(proposal)
        while True:
            ending = self._once(proposal, order)
            if not (ending.memory and self.start.halve_batch and _halved(order, ending.memory)):
                return ending
            size = order["trainings"][0]["settings"][ending.memory]["batch_size"]
            LOG.warning("tune: trial %d again with batch_size %d", proposal.number, size)
            proposal.trial.set_user_attr(BATCH, size)

    def _once(self, proposal: Proposal, order: Mapping[str, Any]) -> "_Ending":
        progress, ending = Progress(self.plan, proposal), _Ending()
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

    def _bury(self, ending: "_Ending") -> None:
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
        apart, trainings = self.start.apart, []
        for unit in proposal.units:
            steps = self.plan.config(proposal.chosen, unit)
            settings = {step: {**apart.get(step, {}), **own} for step, own in steps.items()}
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

    def _is_over(self) -> bool:
        """Whether no new trial may begin."""
        return time.time() > self._deadline or 0 < self.most <= self._done

    def _say(self, *, over: bool = False) -> None:
        """Leave word in the study of who works on what, for `mammo status`."""
        self._beat = time.monotonic()
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "job": os.environ.get("SLURM_JOB_ID", ""),
            "beat": time.time(),
            "trial": self._number,
            "done": self._done,
            "over": over,
        }
        self.study.set_user_attr(f"mammo.worker.{self.name}", about)


@dataclass
class _Ending:
    """How a trial ended, as far as it has been told."""

    measured: list[dict[str, float]] = field(default_factory=list)
    done: bool = False
    outputs: Mapping[str, str] = field(default_factory=dict)
    pruned: str = ""
    failed: str = ""
    memory: str = ""  # the step whose memory ran out
    stopped: int = 0
    code: int = 0
    runs: list[str] = field(default_factory=list)  # in MLflow, the trial's own first

    @property
    def crash(self) -> str:
        """How its process ended without saying what came of it; empty where it did."""
        told = self.done or self.pruned or self.failed or self.stopped
        return "" if told else _crash(self.code)

    def take(self, message: Message) -> bool:
        """Keep what a message says of the end; False for a report that wants an answer."""
        if "training" in message:
            self.measured.append(message["training"])
        for name in ("pruned", "failed", "memory", "stopped"):
            setattr(self, name, message.get(name, getattr(self, name)))
        if "done" in message:
            self.done, self.outputs = True, message["done"]
        return not message.keys() & {"training", "epoch"}

    def tell(self, study: "optuna.Study", plan: Plan, proposal: Proposal, hours: float) -> None:
        """Tell the study."""
        number = proposal.number
        if self.pruned:
            LOG.info("tune: trial %d pruned: %s", number, self.pruned)
            prune(study, proposal.trial)
        elif self.done:
            for name, uri in self.outputs.items():
                proposal.trial.set_user_attr(name, uri)
            shared = hours / len(self.measured)
            values = complete(
                study, plan, proposal, [{**each, HOURS: shared} for each in self.measured]
            )
            LOG.info("tune: trial %d: %s %.4f", number, plan.objective.metric, values[0])
        else:
            reason = self.failed or self.crash
            LOG.warning("tune: trial %d failed: %s", number, reason)
            fail(study, proposal.trial, reason)


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


def _halved(order: Mapping[str, Any], step: str) -> bool:
    """Halve the batch of a step in all trainings; False where it is 1 already."""
    for training in order["trainings"]:
        settings = training["settings"].get(step, {})
        if int(settings.get("batch_size", 1)) < 2:
            return False
        settings["batch_size"] = int(settings["batch_size"]) // 2
    return True


def _crash(code: int) -> str:
    if code >= 0:
        return f"its process ended without a word (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; was the machine out of memory?" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"
