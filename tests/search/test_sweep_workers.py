"""Workers and their queue: each trial has one worker at a time, and ends once, whoever dies."""

import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import trials

from mammo.errors import ConfigError, DataError
from mammo.run import Listener, Result, Stopped
from mammo.search import queue as queues
from mammo.search import worker as workers
from mammo.search.objective import read_objective
from mammo.search.plan import Plan
from mammo.search.queue import Queue, worker_id
from mammo.search.space import Dimension, Space
from mammo.search.start import Start
from mammo.search.storage import open_storage
from mammo.search.study import found_study
from mammo.search.worker import Worker

pytestmark = pytest.mark.doors
SPACE = Space((Dimension("lr", low=0.0, high=1.0),))
PLAN = Plan(
    space=SPACE,
    objective=read_objective("val/auc", seeds=(0,)),
    inputs={},
    settings={"train_classifier": {"batch_size": 8, "lr": 0.5}},
    search="random",
    pruner="none",
)


def study(folder: Path, count: int, *, number: int = 0) -> optuna.Study:
    """A study with `count` trials that wait, opened anew."""
    storage = open_storage(f"sqlite:///{folder}/studies.db")
    return found_study("test", storage, PLAN, n_trials=count, worker=number)


def worker(of: optuna.Study, carried_out: trials.InThread, **settings: Any) -> Worker:
    start = Start("parent", "folder", "work", {}, **settings)
    return Worker(of, PLAN, start, carried_out)


def auc(settings: Mapping[str, Any], listener: Listener | None) -> Result:
    return Result({"model": "m"}, {"best/val/auc": settings["lr"]})


def dead_worker() -> str:
    """The name of a process of this machine that is no more."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    return worker_id().replace(f":{worker_id().split(':')[1]}:", f":{gone.pid}:")


def states(of: optuna.Study) -> list[str]:
    return [each.state.name for each in of.get_trials(deepcopy=False)]


def at_once(count: int, work: Callable[[int], None]) -> None:
    """Do `work` in threads that begin at the same moment."""
    barrier, errors = threading.Barrier(count), list[BaseException]()

    def begin(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    threads = [threading.Thread(target=begin, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_workers_at_once_have_each_trial_done_by_one_of_them(tmp_path: Path) -> None:
    done = [trials.InThread(auc) for _ in range(4)]
    opened = [study(tmp_path, 12, number=number) for number in range(4)]
    at_once(4, lambda n: worker(opened[n], done[n]).work() and None)
    assert states(opened[0]) == ["COMPLETE"] * 12
    names = [order["name"] for each in done for order in each.orders]
    assert sorted(names) == sorted(f"trial_{number}" for number in range(12))
    values = [trial.value for trial in opened[0].trials]
    assert values == [trial.params["lr"] for trial in opened[0].trials]
    assert values[0] == 0.5 and len(set(values)) == 12  # the settings as given come first


def test_a_trial_given_back_goes_on_with_its_number_and_settings(tmp_path: Path) -> None:
    """A stop of the worker ends the trial's process, and then its hold on the trial."""
    found, stopped = study(tmp_path, 1), list[str]()

    class Stopping(trials.InThread):
        def receive(self, timeout_s: float) -> Any:
            message = super().receive(timeout_s)
            if message and "epoch" in message:
                raise Stopped(15)
            return message

        def stop(self) -> None:
            super().stop()
            stopped.extend(states(found))

    def reports(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        assert listener is not None
        listener({"val/auc": 0.25}, 0)
        return auc(settings, listener)

    first = Stopping(reports)
    with pytest.raises(Stopped):
        worker(found, first).work()
    assert stopped == ["RUNNING"]  # nobody could take it while its process lived
    assert states(found) == ["WAITING"]
    second = trials.InThread(reports)
    assert worker(found, second).work() == 1
    assert [each["lr"] for each in second.given] == [each["lr"] for each in first.given]
    (trial,) = found.trials
    assert (trial.number, trial.state.name, trial.value) == (0, "COMPLETE", 0.5)
    assert trial.intermediate_values == {0: 0.25}


def test_a_dead_workers_trial_is_taken_at_once_by_one_worker(tmp_path: Path) -> None:
    found = study(tmp_path, 3)
    taken = Queue(found).take(dead_worker())
    assert taken is not None and taken.number == 0
    taken.set_user_attr(workers.RUN, "run in MLflow")
    done = [trials.InThread(auc) for _ in range(3)]
    opened = [study(tmp_path, 3) for _ in done]
    at_once(3, lambda n: worker(opened[n], done[n]).work(to_the_end=True) and None)
    assert states(found) == ["COMPLETE"] * 3
    names = [order["name"] for each in done for order in each.orders]
    assert sorted(names) == ["trial_0", "trial_1", "trial_2"]
    assert found.trials[0].user_attrs[workers.RUN] == "run in MLflow"
    assert found.trials[0].user_attrs[queues.DIED] == 1


def test_a_silent_heart_elsewhere_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = study(tmp_path, 1)
    assert Queue(found).take("elsewhere/1:123:abcd") is not None
    assert Queue(found).recover() == [] and states(found) == ["RUNNING"]
    monkeypatch.setattr(queues, "STALE_S", -1.0)
    assert Queue(found).recover() == [0] and states(found) == ["WAITING"]
    assert Queue(found).recover() == []


def test_of_many_who_find_a_dead_worker_one_puts_its_trial_back(tmp_path: Path) -> None:
    found = study(tmp_path, 6)
    gone = dead_worker()
    assert all(Queue(found).take(gone) for _ in range(6))
    opened, numbers = [study(tmp_path, 6) for _ in range(4)], list[int]()
    at_once(4, lambda n: numbers.extend(Queue(opened[n]).recover()))
    assert sorted(numbers) == [0, 1, 2, 3, 4, 5]
    assert [each.user_attrs[queues.DIED] for each in found.trials] == [1] * 6


def test_a_trial_that_takes_three_workers_with_it_has_failed(tmp_path: Path) -> None:
    found, gone = study(tmp_path, 1), dead_worker()
    for _ in range(3):
        assert Queue(found).take(gone) is not None
        Queue(found).recover()
    assert states(found) == ["FAIL"]
    assert found.trials[0].user_attrs["error"] == "3 workers died over it"


def test_what_another_has_taken_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stood still for long, and whose trial is another's by now."""
    found, other = study(tmp_path, 1), study(tmp_path, 1)

    def stands_still(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(queues, "STALE_S", -1.0)
            assert Queue(other).recover() == [0]
        assert Queue(other).take("elsewhere/1:123:abcd") is not None
        return auc(settings, listener)

    assert worker(found, trials.InThread(stands_still)).work() == 0
    assert states(found) == ["RUNNING"]
    assert found.trials[0].user_attrs[queues.WORKER] == "elsewhere/1:123:abcd"


def test_a_crash_fails_its_trial_with_its_signal_and_ends_its_runs(tmp_path: Path) -> None:
    class Crashing(trials.InThread):
        def _run(self, order: Mapping[str, Any]) -> None:
            if "bury" not in order:
                self._said.put({"run": "run 1"})
            super()._run(order)

    def crashes(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        if settings["lr"] == 0.5:  # the first one
            raise trials.Crash(-11)
        return auc(settings, listener)

    found, done = study(tmp_path, 2), Crashing(crashes)
    assert worker(found, done).work() == 2
    assert states(found) == ["FAIL", "COMPLETE"]
    assert found.trials[0].user_attrs["error"] == "its process was ended by SIGSEGV"
    assert done.orders[1]["bury"] == ["run 1"]
    assert done.orders[1]["error"] == "its process was ended by SIGSEGV"


@pytest.mark.parametrize(
    ("halve", "fits", "sizes", "state"),
    [
        (True, 2, [8, 4, 2], "COMPLETE"),
        (False, 2, [8], "FAIL"),
        (True, 0, [8, 4, 2, 1], "FAIL"),
    ],
)
def test_where_memory_runs_out_the_batch_is_halved_if_that_is_allowed(
    tmp_path: Path, halve: bool, fits: int, sizes: list[int], state: str
) -> None:
    tried = []

    def hungry(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        tried.append(settings["batch_size"])
        if settings["batch_size"] > fits:
            raise MemoryError
        return auc(settings, listener)

    found = study(tmp_path, 1)
    worker(found, trials.InThread(hungry), halve_batch=halve).work()
    assert (tried, states(found)) == (sizes, [state])
    expected = sizes[-1] if len(sizes) > 1 else None
    assert found.trials[0].user_attrs.get(workers.BATCH) == expected


def test_who_goes_on_with_a_trial_knows_what_fits_into_memory(tmp_path: Path) -> None:
    """Its first worker halved the batch and was stopped; the checkpoint is of the half one."""
    found = study(tmp_path, 1)
    trial = Queue(found).take(dead_worker())
    assert trial is not None
    trial.set_user_attr(workers.BATCH, 2)
    done = trials.InThread(auc)
    assert worker(found, done, halve_batch=True).work() == 1
    assert [each["batch_size"] for each in done.given] == [2]


def test_a_worker_may_take_only_some_trials(tmp_path: Path) -> None:
    found = study(tmp_path, 3)
    start = Start("parent", "folder", "work", {})
    assert Worker(found, PLAN, start, trials.InThread(auc), most=2).work() == 2
    assert states(found) == ["COMPLETE", "COMPLETE", "WAITING"]


def test_the_time_counts_from_the_first_worker_of_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, now = study(tmp_path, 1), [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    first = Start("parent", "folder", "work", {}, timeout_s=60)
    assert first.deadline(found) == 1060
    now[0] = 1050.0
    assert first.deadline(found) == 1060  # of one who comes later
    again = Start("parent", "folder", "work", {}, timeout_s=60)
    assert again.deadline(found) == 1110


def test_a_failed_training_fails_its_trial_alone(tmp_path: Path) -> None:
    def fails(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        if settings["lr"] == 0.5:
            raise DataError("no image of class benign")
        return auc(settings, listener)

    found = study(tmp_path, 2)
    worker(found, trials.InThread(fails)).work()
    assert states(found) == ["FAIL", "COMPLETE"]
    assert found.trials[0].user_attrs["error"] == "no image of class benign"


def test_a_storage_that_is_away_for_a_while_costs_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes away while a trial reports, and when the worker tries again."""
    from sqlalchemy.exc import OperationalError

    found, failures = study(tmp_path, 2), [True, True]
    for name in ("is_held", "give_back"):
        real = getattr(Queue, name)

        def broken(self: Queue, *asked: Any, real: Any = real) -> Any:
            if failures:
                failures.pop()
                raise OperationalError("", {}, Exception("connection refused"))
            return real(self, *asked)

        monkeypatch.setattr(Queue, name, broken)
    monkeypatch.setattr(workers, "_LAST_S", 0.01)
    done = trials.InThread(auc)
    assert worker(found, done).work() == 2
    assert states(found) == ["COMPLETE", "COMPLETE"]
    assert [order["name"] for order in done.orders] == ["trial_0", "trial_0", "trial_1"]


def test_a_storage_that_stays_away_ends_the_worker_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def broken(*_: Any) -> Any:
        raise OperationalError("", {}, Exception("connection refused"))

    found = study(tmp_path, 1)
    for name in ("is_held", "give_back"):
        monkeypatch.setattr(Queue, name, broken)
    monkeypatch.setattr(workers, "_LAST_S", 0.01)
    monkeypatch.setattr(workers, "_AWAY_S", 0.0)
    with pytest.raises(ConfigError, match=r"storage of study test does not answer \(connection"):
        worker(found, trials.InThread(auc)).work()


def away(*_: Any) -> Any:
    from sqlalchemy.exc import OperationalError

    raise OperationalError("", {}, Exception("connection refused"))


def test_a_worker_without_a_trial_does_not_wait_for_ever_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = study(tmp_path, 1)
    monkeypatch.setattr(workers, "_LAST_S", 0.01)
    monkeypatch.setattr(workers, "_AWAY_S", 0.05)
    for name in ("recover", "give_back"):
        monkeypatch.setattr(Queue, name, away)
    with pytest.raises(ConfigError, match=r"storage of study test does not answer \(connection"):
        worker(found, trials.InThread(auc)).work()


def test_who_is_told_to_stop_while_the_storage_is_away_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial is left to who finds it gone."""
    found = study(tmp_path, 1)

    class Stopping(trials.InThread):
        def receive(self, timeout_s: float) -> Any:
            message = super().receive(timeout_s)
            if message and "epoch" in message:
                for name in ("is_held", "give_back"):
                    monkeypatch.setattr(Queue, name, away)
                raise Stopped(15)
            return message

    def reports(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        assert listener is not None
        listener({"val/auc": 0.25}, 0)
        return auc(settings, listener)

    with pytest.raises(Stopped):
        worker(found, Stopping(reports)).work()
    assert states(found) == ["RUNNING"]


def test_a_stop_between_the_end_of_a_trial_and_its_telling_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = study(tmp_path, 1)

    def stop(self: Queue, *_: Any) -> bool:
        raise Stopped(15)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Queue, "is_held", stop)
        worker(found, trials.InThread(auc)).work()
    assert states(found) == ["WAITING"]
    assert queues.DIED not in found.trials[0].user_attrs
    assert worker(found, trials.InThread(auc)).work() == 1


def test_a_bug_in_a_worker_counts_as_its_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would end one worker after the other, for ever."""
    found = study(tmp_path, 1)

    def bug(*_: Any) -> Any:
        raise AssertionError("a bug")

    with monkeypatch.context() as patch, pytest.raises(AssertionError):
        patch.setattr(workers, "propose", bug)
        worker(found, trials.InThread(auc)).work()
    assert states(found) == ["RUNNING"]


def test_a_trial_that_another_worker_has_ended_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine that slept: its trial was taken up and ended, its run is that of the other."""
    found, other = study(tmp_path, 2), study(tmp_path, 2)

    class Sleeping(trials.InThread):
        def _run(self, order: Mapping[str, Any]) -> None:
            self._said.put({"run": "run 1"})
            super()._run(order)

    def sleeps(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        assert listener is not None
        if settings["lr"] == 0.5:  # the first one
            with monkeypatch.context() as patch:
                patch.setattr(queues, "STALE_S", -1.0)
                assert Queue(other).recover() == [0]
            start = Start("parent", "folder", "work", {})
            assert Worker(other, PLAN, start, trials.InThread(auc), most=1).work() == 1
        listener({"val/auc": 0.1}, 0)
        return auc(settings, listener)

    done = Sleeping(sleeps)
    assert worker(found, done).work() == 1  # the second one
    assert states(found) == ["COMPLETE", "COMPLETE"]
    assert found.trials[0].value == 0.5 and found.trials[0].intermediate_values == {}
    assert [order["name"] for order in done.orders] == ["trial_0", "trial_1"]  # and no burial


def test_a_training_without_the_metric_fails_its_trial_alone(tmp_path: Path) -> None:
    """A step hands on no number that is not there: a loss that was nan, say."""

    def measures(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        return Result() if settings["lr"] == 0.5 else auc(settings, listener)

    found = study(tmp_path, 2)
    assert worker(found, trials.InThread(measures)).work() == 2
    assert states(found) == ["FAIL", "COMPLETE"]
    assert found.trials[0].user_attrs["error"] == "val/auc is nan"


def test_when_the_time_is_over_the_trials_of_others_are_waited_for(tmp_path: Path) -> None:
    """The one that is told of them, and the one that takes the best of them, needs them all."""
    found, other = study(tmp_path, 3), study(tmp_path, 3)
    begun, ended = threading.Event(), threading.Event()

    def waits(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        begun.set()
        assert ended.wait(60)
        return auc(settings, listener)

    slow = threading.Thread(target=lambda: worker(other, trials.InThread(waits)).work())
    slow.start()
    assert begun.wait(60)
    late = worker(found, trials.InThread(auc), timeout_s=1e-9)
    looks = []

    def told() -> None:
        looks.append(states(found)[0])
        ended.set()

    late.told = told
    try:
        assert late.work(to_the_end=True) == 0
    finally:
        ended.set()
        slow.join()
    assert looks and looks[0] == "RUNNING"


def test_machines_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that lives on another machine of this name is not dead because it is not here."""
    gone = dead_worker()
    assert queues.is_gone(gone)
    name, start, rest = gone.split("/")
    elsewhere = f"{name}/{'0' if start[0] != '0' else '1'}{start[1:]}/{rest}"
    assert not queues.is_gone(elsewhere)


def test_a_goal_of_hours_has_every_training_done_anew(tmp_path: Path) -> None:
    """One that another search has done would have taken no time."""
    objective = read_objective("val/auc", "gpu_hours", seeds=(0,))
    timed = replace(PLAN, objective=objective)
    storage = open_storage(f"sqlite:///{tmp_path}/studies.db")
    found = found_study("timed", storage, timed, n_trials=1)
    for of, plan, expected in ((found, timed, False), (study(tmp_path, 1), PLAN, None)):
        done = trials.InThread(auc)
        start = Start("parent", "folder", "work", {}, reuse=True)
        assert Worker(of, plan, start, done).work() == 1
        assert [each.get("reuse") for each in done.given] == [expected]
