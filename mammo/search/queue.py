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
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

BEAT_S = 20.0  # between two heartbeats of a trial that is worked on
STALE_S = 90.0  # a trial whose heart was silent for so long has lost its worker
_TRIED = 8  # trials that wait and are tried before a new look
DEATHS = 3  # workers that a trial may take with it before it is to blame
WORKER, DIED, ERROR = "worker", "workers_died", "error"  # attributes of a trial


class Queue:
    """The trials of `study`, which Optuna keeps in a database."""

    def __init__(self, study: "optuna.Study") -> None:
        self.study = study
        self._storage = study._storage
        self._database: Any = getattr(self._storage, "_backend", self._storage)

    def take(self, worker: str) -> "optuna.Trial | None":
        """A trial that waited, and that nobody else has; None where none waits."""
        import optuna

        self.study._thread_local.cached_all_trials = None  # the search is to see what is new
        while waiting := self._in("WAITING", most=_TRIED):
            for trial_id in waiting:
                if self._taken(trial_id, worker):
                    return optuna.Trial(self.study, trial_id)
        return None

    def beat(self, trial_id: int) -> None:
        """The trial is worked on."""
        self._database.record_heartbeat(trial_id)

    def is_held(self, trial_id: int, worker: str) -> bool:
        """Whether the trial is still that of `worker`, and nobody took him for dead."""
        import sqlalchemy
        from optuna.storages._rdb.models import TrialModel
        from optuna.storages._rdb.models import TrialUserAttributeModel as Attribute

        asked = sqlalchemy.select(TrialModel.state, Attribute.value_json).join(Attribute)
        asked = asked.where(TrialModel.trial_id == trial_id, Attribute.key == WORKER)
        with self._database.engine.connect() as connection:
            found = connection.execute(asked).one_or_none()
        return bool(found and found[0].name == "RUNNING" and json.loads(found[1]) == worker)

    def give_back(self, worker: str) -> None:
        """Let others go on with what `worker` has, at once."""
        for trial_id in self._in("RUNNING"):
            with self._locked(trial_id) as trial:
                if trial.state == "RUNNING" and trial.said.get(WORKER) == worker:
                    trial.become("WAITING")

    def recover(self) -> list[int]:
        """Put the trials of dead workers back; returns the numbers of those this call put back."""
        found = [each for each in self._in("RUNNING") if self._recovered(each)]
        return [self._database.get_trial(each).number for each in found]

    @property
    def is_over(self) -> bool:
        """Whether no trial is left to be ended."""
        return not (self.goes_on or self._in("WAITING", most=1))

    @property
    def goes_on(self) -> bool:
        """Whether somebody works on a trial."""
        return bool(self._in("RUNNING", most=1))

    def _in(self, state: str, *, most: int | None = None) -> list[int]:
        """Ids of trials in a state, the first ones first; Optuna itself would read all of them."""
        import sqlalchemy
        from optuna.storages._rdb.models import TrialModel
        from optuna.trial import TrialState

        asked = sqlalchemy.select(TrialModel.trial_id).order_by(TrialModel.trial_id).limit(most)
        asked = asked.where(TrialModel.study_id == self.study._study_id)
        with self._database.engine.connect() as connection:
            return list(connection.scalars(asked.where(TrialModel.state == TrialState[state])))

    def _taken(self, trial_id: int, worker: str) -> bool:
        """Whether the trial waited, and is now that of `worker`."""
        with self._locked(trial_id) as trial:
            if trial.state != "WAITING":
                return False
            trial.become("RUNNING")
            trial.say(WORKER, worker)
            trial.beat()
            return True

    def _recovered(self, trial_id: int) -> bool:
        """Whether the worker of a trial was dead, and the trial is put back."""
        with self._locked(trial_id) as trial:
            worker = str(trial.said.get(WORKER, ""))
            if trial.state != "RUNNING" or not (trial.silent_s > STALE_S or is_gone(worker)):
                return False
            deaths = int(trial.said.get(DIED, 0)) + 1
            trial.say(DIED, deaths)
            if deaths < DEATHS:
                trial.become("WAITING")
            else:
                trial.say(ERROR, f"{deaths} workers died over it")
                trial.become("FAIL")
            return True

    @contextmanager
    def _locked(self, trial_id: int) -> Iterator["_Row"]:
        """A trial in the database, which nobody else changes meanwhile."""
        from optuna.storages._rdb.models import TrialModel
        from sqlalchemy.orm import Session

        with uninterrupted(), Session(self._database.engine) as session, session.begin():
            yield _Row(session, TrialModel.find_or_raise_by_id(trial_id, session, for_update=True))


class _Row:
    """A trial within a transaction, by Optuna's own tables."""

    def __init__(self, session: Any, row: Any) -> None:
        self._session, self._row = session, row
        self.state = str(row.state.name)
        self.said = {each.key: json.loads(each.value_json) for each in row.user_attributes}

    @property
    def silent_s(self) -> float:
        """Seconds since the last heartbeat, by the clock of the database."""
        heart = self._heart()
        return (self._now() - heart.heartbeat).total_seconds() if heart else 0.0

    def become(self, state: str) -> None:
        from optuna.trial import TrialState

        self._row.state = TrialState[state]
        if state == "RUNNING":
            self._row.datetime_start = datetime.now()
        if TrialState[state].is_finished():
            self._row.datetime_complete = datetime.now()

    def say(self, name: str, value: object) -> None:
        """Set an attribute."""
        from optuna.storages._rdb.models import TrialUserAttributeModel as Attribute

        found = next((each for each in self._row.user_attributes if each.key == name), None)
        if found is None:
            found = Attribute(trial_id=self._row.trial_id, key=name)
            self._session.add(found)
        found.value_json = json.dumps(value)

    def beat(self) -> None:
        from optuna.storages._rdb.models import TrialHeartbeatModel

        heart = self._heart()
        if heart is None:
            self._session.add(TrialHeartbeatModel(trial_id=self._row.trial_id))
        else:
            heart.heartbeat = self._now()

    def _heart(self) -> Any:
        from optuna.storages._rdb.models import TrialHeartbeatModel

        return TrialHeartbeatModel.where_trial_id(self._row.trial_id, self._session)

    def _now(self) -> datetime:
        import sqlalchemy

        now: datetime = self._session.execute(sqlalchemy.func.now()).scalar_one()
        return now.replace(tzinfo=None)  # as Optuna keeps heartbeats


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
    """This start of this machine, which shares its name with others that were set up alike.

    Containers on it number their processes by themselves.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        container = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        start = container = "0"
    return f"{socket.gethostname()}/{start}/{container}"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep signals waiting while something is half done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
