"""`mammo status`: what is told of a study follows from its trials and its workers' last words."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from mammo import cli
from mammo.commands.status import lines
from mammo.search.objective import read_objective
from mammo.search.plan import Plan
from mammo.search.space import Dimension, Space
from mammo.search.status import WORKERS, status_of
from mammo.search.study import CHOSEN, OWN, PLAN

NOW = datetime(2026, 1, 2, 12, 0, 0)
SPACE = Space((Dimension("lr", low=0.0, high=1.0),))


def plan(metric: str = "val/auc") -> Plan:
    own = {"train_classifier": {"lr": 0.5}}
    return Plan(SPACE, read_objective(metric, seeds=(0,)), {}, own)


def study(*ends: tuple[str, float], left: int = 0) -> optuna.Study:
    """Trials that ended a minute after each other, the last one now, and others that wait."""
    made = optuna.create_study(study_name="mix", direction="maximize")
    made.set_user_attr(PLAN, plan().dumps())
    for number, (state, value) in enumerate(ends):
        over = NOW - timedelta(minutes=len(ends) - 1 - number)
        of = optuna.trial.TrialState[state]
        values: dict[str, Any] = {"value": value} if state == "COMPLETE" else {}
        own = {CHOSEN: {"lr": value}, OWN: [value]} if state == "COMPLETE" else {}
        trial = optuna.create_trial(
            state=of,
            params={"lr": value},
            distributions={"lr": optuna.distributions.FloatDistribution(0, 1)},
            user_attrs={"error": "no image of class benign"} if state == "FAIL" else own,
            **values,
        )
        trial.datetime_start, trial.datetime_complete = over - timedelta(minutes=1), over
        made.add_trial(trial)
    for _ in range(left):
        made.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING))
    return made


def word(**said: Any) -> dict[str, Any]:
    about = {"host": "n1", "pid": 7, "gpus": "0", "job": "2_1", "trial": 3, "done": 2}
    return {**about, "beat": NOW.timestamp() - 5, "over": False, **said}


def test_counts_best_rate_and_time_left() -> None:
    ends = [("COMPLETE", 0.7), ("FAIL", 0.1), ("COMPLETE", 0.9), ("PRUNED", 0.2)]
    found = study(*ends, left=6)
    seen = status_of(found, plan(), now=NOW.timestamp())
    assert seen.counts == {"COMPLETE": 2, "PRUNED": 1, "FAIL": 1, "RUNNING": 0, "WAITING": 6}
    assert (seen.best, seen.best_number, seen.chosen) == (0.9, 2, {"lr": 0.9})
    assert seen.per_hour == pytest.approx(60.0)
    assert seen.left_s == pytest.approx(360.0)
    assert seen.errors == ["no image of class benign"] and not seen.is_over


def test_a_search_that_stands_still_goes_slower() -> None:
    """Two ends a minute apart, then nothing for three minutes: the next is two minutes late."""
    found = study(("COMPLETE", 0.7), ("COMPLETE", 0.9), left=1)
    seen = status_of(found, plan(), now=(NOW + timedelta(minutes=3)).timestamp())
    assert seen.per_hour == pytest.approx(20.0)


def test_the_lowest_loss_is_the_best() -> None:
    found = study(("COMPLETE", 0.7), ("COMPLETE", 0.9))
    assert status_of(found, plan("val/loss"), now=NOW.timestamp()).best == 0.7


def test_the_best_is_a_configuration_by_the_mean_of_its_trials() -> None:
    """One lucky trial of 0.9 does not stay the best once the next one of it gives 0.3."""
    found = study(("COMPLETE", 0.9), ("COMPLETE", 0.7))
    again = optuna.create_trial(
        value=0.6,
        user_attrs={CHOSEN: {"lr": 0.9}, OWN: [0.3]},
        state=optuna.trial.TrialState.COMPLETE,
    )
    found.add_trial(again)
    seen = status_of(found, plan(), now=NOW.timestamp())
    assert (seen.best, seen.best_number, seen.chosen) == (0.7, 1, {"lr": 0.7})


def test_a_storage_that_goes_away_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise OperationalError("", {}, Exception("connection refused"))

    monkeypatch.setattr("mammo.commands.status.open_storage", lambda address: None)
    monkeypatch.setattr("mammo.commands.status.join_study", away)
    assert cli.main(["status", "mix", "--storage", f"sqlite:///{tmp_path}/studies.db"]) == 2
    line = "status: the storage of study mix does not answer (connection refused); start it and"
    assert capsys.readouterr().err.startswith(line)


def test_workers_work_idle_are_lost_or_have_left() -> None:
    found = study(left=1)
    found.set_user_attr(f"{WORKERS}a", word())
    found.set_user_attr(f"{WORKERS}b", word(pid=8, trial=-1))
    found.set_user_attr(f"{WORKERS}c", word(pid=9, beat=NOW.timestamp() - 100))
    found.set_user_attr(f"{WORKERS}d", word(pid=10, over=True))
    seen = status_of(found, plan(), now=NOW.timestamp())
    told = [(each.pid, each.state) for each in seen.workers]
    assert told == [(7, "works"), (8, "idle"), (9, "lost"), (10, "left")]
    text = "\n".join(lines(seen))
    assert "n1:7" in text and "2_1" in text and "100 s ago, lost" in text
    assert "n1:10" not in text and "1 workers have left" in text


def test_what_is_shown() -> None:
    found = study(("COMPLETE", 0.25), ("COMPLETE", 0.5), left=1)
    shown = lines(status_of(found, plan(), now=NOW.timestamp()))
    assert shown == [
        "study mix: 2 of 3 trials are over",
        "  2 complete, 0 pruned, 0 failed, 0 running, 1 waiting",
        "  best val/auc 0.5000: trial 1 (lr 0.5)",
        "  60.0 trials/hour, about 60 s left",
    ]


@pytest.mark.doors
def test_a_study_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = f"sqlite:///{tmp_path}/studies.db"
    assert cli.main(["status", "mix", "--storage", kept]) == 2
    assert capsys.readouterr().err == "status: no study is called mix; the storage has none\n"
    assert cli.main(["worker", "--storage", kept]) == 2
    assert "worker: study is empty" in capsys.readouterr().err
    assert cli.main(["worker", "--study", "mix", "--trials", "-3", "--storage", kept]) == 2
    assert "worker: trials -3 cannot be; give a number" in capsys.readouterr().err
