"""The trials of a study as a queue: waiting, in the hands of a worker, or over.

A study holds all its trials from the start. Workers take those that wait and never make one, so
that exactly as many end as were asked for, however many workers there are.
"""

import json
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

BEAT_S = 20.0  # between two heartbeats of a trial that is worked on
STALE_S = 90.0  # a trial whose heart was silent for so long has lost its worker
DEATHS = 3  # workers that a trial may take with it before it is to blame
WORKER, DIED, ERROR = "worker", "workers_died", "error"  # attributes of a trial


class Queue:
    """The trials of `study`, which Optuna keeps in a database."""

    def __init__(self, study: "optuna.Study") -> None:
        self.study = study
        self._storage = study._storage
        self._database: Any = getattr(self._storage, "_backend", self._storage)

    def fill(self, count: int) -> None:
        """Have `count` trials in all."""
        import optuna

        # with no settings at all, which a search over a grid would take for its own
        waiting = optuna.create_trial(state=optuna.trial.TrialState.WAITING)
        for _ in range(len(self.study.get_trials(deepcopy=False)), count):
            self.study.add_trial(waiting)

    def take(self, worker: str) -> "optuna.Trial | None":
        """A trial that waited, and that nobody else has; None where none waits."""
        import optuna

        self.study._thread_local.cached_all_trials = None  # the search is to see what is new
        for found in self.waiting():
            number = found._trial_id
            with suppress(optuna.exceptions.UpdateFinishedTrialError), uninterrupted():
                # before it runs, so that who looks for the trials of dead workers finds whose it is
                self.beat(number)
                self._storage.set_trial_user_attr(number, WORKER, worker)
                state = optuna.trial.TrialState.RUNNING
                if not self._storage.set_trial_state_values(number, state=state):
                    continue
                trial = optuna.Trial(self.study, number)
                if trial._cached_frozen_trial.user_attrs.get(WORKER) != worker:  # of who came late
                    trial.set_user_attr(WORKER, worker)
                return trial
        return None

    def beat(self, trial_id: int) -> None:
        """The trial is worked on."""
        self._database.record_heartbeat(trial_id)

    def is_held(self, trial_id: int, worker: str) -> bool:
        """Whether the trial is still that of `worker`, and nobody took him for dead."""
        found = self._database.get_trial(trial_id)
        return bool(found.state.name == "RUNNING" and found.user_attrs.get(WORKER) == worker)

    def give_back(self, trial_id: int, worker: str) -> None:
        """Let another worker go on with a trial, at once."""
        import optuna

        if self.is_held(trial_id, worker):
            self._storage.set_trial_state_values(trial_id, state=optuna.trial.TrialState.WAITING)

    def recover(self) -> list[int]:
        """Put the trials of dead workers back; returns the numbers of those this call put back."""
        return [each.number for each in self.running() if self._recovered(each._trial_id)]

    def running(self) -> list["FrozenTrial"]:
        return self._in("RUNNING")

    def waiting(self) -> list["FrozenTrial"]:
        return self._in("WAITING")

    def _in(self, state: str) -> list["FrozenTrial"]:
        import optuna

        return list(self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState[state],)))

    def _recovered(self, trial_id: int) -> bool:
        """Whether the worker of a trial was dead, and the trial is put back.

        The lock on its heartbeat keeps others out, those too who are about to begin with it.
        """
        import sqlalchemy
        from optuna.storages._rdb import models
        from optuna.trial import TrialState
        from sqlalchemy.orm import Session

        with uninterrupted(), Session(self._database.engine) as session, session.begin():
            heart = models.TrialHeartbeatModel.where_trial_id(trial_id, session, for_update=True)
            trial = models.TrialModel.find_or_raise_by_id(trial_id, session)
            if heart is None or trial.state != TrialState.RUNNING:
                return False
            now = session.execute(sqlalchemy.func.now()).scalar_one().replace(tzinfo=None)
            said = {each.key: json.loads(each.value_json) for each in trial.user_attributes}
            silent_s = (now - heart.heartbeat).total_seconds()
            if not (silent_s > STALE_S or is_gone(str(said.get(WORKER, "")))):
                return False
            said[DIED] = int(said.get(DIED, 0)) + 1
            trial.state = TrialState.WAITING
            if said[DIED] >= DEATHS:
                said[ERROR] = f"{said[DIED]} workers died over it"
                trial.state, trial.datetime_complete = TrialState.FAIL, datetime.now()
            for name in (DIED, *([ERROR] if trial.state == TrialState.FAIL else [])):
                found = models.TrialUserAttributeModel.find_by_trial_and_key(trial, name, session)
                if found is None:
                    found = models.TrialUserAttributeModel(trial_id=trial_id, key=name)
                    session.add(found)
                found.value_json = json.dumps(said[name])
            return True


def worker_id() -> str:
    """A name that no other process has: its machine, its number there, and a die."""
    return f"{_machine()}:{os.getpid()}:{secrets.token_hex(4)}"


def is_gone(worker: str) -> bool:
    """Whether `worker` was a process of this machine that is no more."""
    machine, _, number = worker.rpartition(":")[0].rpartition(":")
    if machine != _machine() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _machine() -> str:
    """This machine's name; containers that share it number their processes by themselves."""
    try:
        container = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        container = "0"
    return f"{socket.gethostname()}/{container}"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep signals waiting while something is half done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
