"""A sweep on a real PostgreSQL: eight workers at once, within the connections that are stated."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import doors
import pytest
import servers

from mammo.search.objective import read_objective
from mammo.search.plan import Plan
from mammo.search.space import Dimension, Space
from mammo.search.storage import BESIDE, CONNECTIONS, check_room, open_storage
from mammo.search.study import found_study
from mammo.steps import tune

pytestmark = pytest.mark.doors
WORKER = """
import sys
import trials
from mammo.run import Result
from mammo.search.start import Start
from mammo.search.storage import open_storage
from mammo.search.study import join_study
from mammo.search.worker import Worker

def train(settings, listener):
    for epoch in range(5):
        listener({"val/auc": settings["lr"] - 0.01 * (5 - epoch)}, epoch)
    return Result({"model": "m"}, {"best/val/auc": settings["lr"]})

study, plan = join_study("short", open_storage(sys.argv[1]), worker=sys.argv[2])
start = Start("parent", "folder", "work", {})
print(Worker(study, plan, start, trials.InThread(train)).work(to_the_end=True))
"""
SPACE = Space(
    (
        Dimension("lr", low=0.0, high=1.0),
        Dimension("weight_decay", low=0.0, high=1.0),
        Dimension("loss", choices=("ce", "bce", "focal")),
        Dimension("batch_size", low=4, high=64, whole=True),
    )
)
PLAN = Plan(
    space=SPACE,
    objective=read_objective("val/auc", seeds=(0,)),
    inputs={},
    settings={"train_classifier": {"lr": 0.5, "weight_decay": 0.0, "loss": "ce", "batch_size": 8}},
    search="random",
    pruner="median",
)


@pytest.fixture
def database(postgres: servers.Postgres) -> servers.Postgres:
    """An empty database of its own."""
    name = f"studies_{time.monotonic_ns()}"
    mine = servers.Postgres(postgres.port, postgres.user, postgres.password, name)
    command(postgres, f"CREATE DATABASE {name}")
    return mine


def command(postgres: servers.Postgres, sql: str) -> None:
    """A command that may not stand in a transaction."""
    import psycopg2

    connection = psycopg2.connect(
        host=postgres.host,
        port=postgres.port,
        user=postgres.user,
        password=postgres.password,
        dbname=postgres.database,
    )
    connection.autocommit = True
    connection.cursor().execute(sql)
    connection.close()


def test_eight_workers_end_two_hundred_trials_once_each(
    database: servers.Postgres, tmp_path: Path
) -> None:
    storage = open_storage(database.uri)
    study = found_study("short", storage, PLAN, n_trials=200)
    program = [sys.executable, "-c", WORKER, database.uri]
    environment = doors.environment()
    environment["PYTHONPATH"] += f":{Path(__file__).parent}"
    logs = [(tmp_path / f"{number}.err").open("w+") for number in range(8)]
    workers = [
        subprocess.Popen(
            [*program, str(number)], stdout=subprocess.PIPE, stderr=log, env=environment
        )
        for number, log in enumerate(logs)
    ]
    most = 0
    asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mammo tune'"
    while any(each.poll() is None for each in workers):
        most = max(most, int(database.query(asked)[0][0]))
        time.sleep(0.2)
    done = [int(each.communicate()[0] or -1) for each in workers]
    for each, log in zip(workers, logs, strict=True):
        log.seek(0)
        said = log.read()
        log.close()
        assert each.returncode == 0, said
        assert "rror" not in said, said  # no storage call has failed, not even one that was retried
    trials = study.trials
    assert sum(done) == 200 and min(done) > 0
    assert [each.number for each in trials] == list(range(200))
    assert {each.state.name for each in trials} <= {"COMPLETE", "PRUNED"}
    for each in trials:
        assert list(each.params) == ["lr", "weight_decay", "loss", "batch_size"]
        if each.state.name == "COMPLETE":
            assert each.value == each.params["lr"]
            assert sorted(each.intermediate_values) == [0, 1, 2, 3, 4]
    assert 8 <= most <= 8 * CONNECTIONS + BESIDE
    rows: list[Any] = database.query(
        "SELECT count(*), count(DISTINCT number) FROM trials JOIN studies USING (study_id) "
        "WHERE study_name = 'short'"
    )
    assert rows == [(200, 200)]


def test_more_workers_than_the_database_allows_are_refused_before_anything_is_launched(
    database: servers.Postgres, tmp_path: Path
) -> None:
    name = f"few_{database.database}"
    command(database, f"CREATE ROLE {name} LOGIN PASSWORD 'few' CONNECTION LIMIT 4")
    command(database, f"GRANT ALL ON SCHEMA public TO {name}")
    few = servers.Postgres(database.port, name, "few", database.database)
    asked = {"data": "0" * 32, "storage": few.uri, "train_classifier__model_name": "resnet10t"}
    refused = doors.here("tune", workers=3, **asked)
    assert refused.code == 2
    line = refused.err.strip().splitlines()[-1]
    assert line.startswith("tune: workers 3: storage ") and "few:few" not in line
    assert "allows its role 4 connections" in line and "give workers 2 or fewer" in line
    check_room(tune._storage(few.uri), 2)
    assert not (tmp_path / "mlflow.db").exists()  # no run was opened
