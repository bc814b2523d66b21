"""Where studies are kept: databases that open, and one line for each that does not."""

import multiprocessing
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import pytest
import servers
from spaces import plan

from mammo.errors import ConfigError
from mammo.search.storage import (
    BESIDE,
    CONNECTIONS,
    check_room,
    default_storage,
    open_storage,
    shown,
)
from mammo.search.study import complete, found_study, join_study, propose

SECRET = "a:b/c@%d"


def refused(address: str, **settings: Any) -> str:
    """The one line with which an address is refused."""
    with pytest.raises(ConfigError) as caught:
        open_storage(address, **settings)
    line = str(caught.value)
    assert "\n" not in line
    assert SECRET not in line
    assert quote(SECRET, safe="") not in line
    return line


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("studies.db", "storage 'studies.db' is no address; give postgresql+psycopg2://USER:PASS"),
        ("mysql://u@h/db", "storage mysql://u@h/db is of no kind that is known; give postgresql"),
        ("journal:///x.log", "storage journal:///x.log: a journal file has no heartbeats"),
        ("sqlite:////nowhere/at/all/x.db", "x.db cannot be opened: unable to open database file"),
    ],
)
def test_an_address_that_cannot_be_opened_is_one_line(address: str, expected: str) -> None:
    assert expected in refused(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (f"postgresql://u:{quote(SECRET, safe='')}@h:1/db", "postgresql://u:***@h:1/db"),
        (f"postgresql://u:{SECRET}@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u@h/db?password=geheim", "postgresql://u@h/db?password=***"),
        ("sqlite:///studies.db", "sqlite:///studies.db"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, expected: str) -> None:
    assert shown(address) == expected


def test_a_file_of_another_program_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("create table experiments (id int)")
        connection.execute("create table runs (id int)")
    line = refused(f"sqlite:///{tmp_path}/mlflow.db")
    assert "is the database of another program (with tables experiments, runs)" in line
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        found = connection.execute("select count(*) from sqlite_master").fetchone()
    assert found == (2,)


@pytest.mark.doors
def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    open_storage(default_storage(tmp_path)).engine.dispose()
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute("update alembic_version set version_num = 'v2.6.0.a'")
    line = refused(default_storage(tmp_path))
    assert "has the tables of another version of Optuna; run `optuna storage upgrade" in line


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "studies.db").write_text("not a database, but a text of some length" * 40)
    assert "cannot be opened: file is not a database" in refused(default_storage(tmp_path))


@pytest.mark.doors
def test_a_transaction_of_sqlite_holds_the_lock_from_its_start(tmp_path: Path) -> None:
    """Else two processes read a trial as waiting, and both take it."""
    storage = open_storage(default_storage(tmp_path))
    other = sqlite3.connect(tmp_path / "studies.db", timeout=0)
    with storage.engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("begin immediate")
    other.close()


def _opened(address: str, start: Any, told: Any) -> None:
    start.wait()
    told.put(len(open_storage(address).get_all_studies()))


@pytest.mark.doors
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_eight_processes_may_make_the_tables_at_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "sqlite":
        address = default_storage(tmp_path)
    else:
        address = fresh(request.getfixturevalue("postgres"), "meeting").uri
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_opened, args=(address, start, told)) for _ in range(8)]
    for each in processes:
        each.start()
    assert [told.get(timeout=120) for _ in processes] == [0] * 8
    for each in processes:
        each.join()


def fresh(server: servers.Postgres, name: str) -> servers.Postgres:
    """An empty database on the server, of a role of its own whose password has odd characters."""
    import psycopg2

    connection = psycopg2.connect(
        host=server.host, port=server.port, user=server.user, password=server.password,
        dbname=server.database,
    )  # fmt: skip
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"drop database if exists {name}")
        cursor.execute(f"drop role if exists {name}")
        cursor.execute(f"create role {name} login password %s", (SECRET,))
        cursor.execute(f"create database {name} owner {name}")
    connection.close()
    return servers.Postgres(server.port, name, SECRET, name, server.host)


@pytest.mark.doors
def test_postgresql_is_opened_by_any_of_its_names(postgres: servers.Postgres) -> None:
    database = fresh(postgres, "names")
    for kind in ("postgresql+psycopg2", "postgresql"):
        storage = open_storage(database.uri.replace("postgresql+psycopg2", kind))
        assert storage.engine.url.drivername == "postgresql+psycopg2"
        study = found_study(f"mix {kind}", storage, plan({"loss": {"choices": ["ce"]}}), n_trials=2)
        assert len(study.trials) == 2
        storage.engine.dispose()


@pytest.mark.doors
def test_what_a_server_refuses_is_one_line(postgres: servers.Postgres) -> None:
    database = fresh(postgres, "refusals")
    wrong = servers.Postgres(database.port, "refusals", "x" * 9, "refusals")
    assert "the server does not take this user and password" in refused(wrong.uri)
    absent = servers.Postgres(database.port, "refusals", SECRET, "nothing_there")
    assert "the server has no such database; make it with createdb" in refused(absent.uri)
    nobody = servers.Postgres(servers.free_port(), "refusals", SECRET, "refusals")
    assert 'cannot be opened: connection to server at "127.0.0.1"' in refused(nobody.uri)
    open_storage(database.uri).engine.dispose()
    database.query("update alembic_version set version_num = 'v2.6.0.a'")
    assert "has the tables of another version of Optuna" in refused(database.uri)
    tables = fresh(postgres, "other_program")
    tables.query("create table experiments (id int)")
    assert "is the database of another program (with tables experiments)" in refused(tables.uri)


@pytest.mark.doors
def test_a_user_who_may_not_write_is_told_so(postgres: servers.Postgres) -> None:
    owner = fresh(postgres, "owned")
    guest = fresh(postgres, "guest")
    visiting = servers.Postgres(owner.port, guest.user, guest.password, owner.database)
    line = refused(visiting.uri)
    assert "permission denied for schema public" in line
    assert "let the user own its database" in line


@pytest.mark.doors
def test_more_workers_than_the_server_has_room_for_are_refused(tmp_path: Path) -> None:
    """Counted by hand, on a server that nobody else uses: what it allows less its reserve."""
    with servers.running_postgres() as postgres:
        _refused_beyond_its_room(postgres, tmp_path)


def _refused_beyond_its_room(postgres: servers.Postgres, tmp_path: Path) -> None:
    database = fresh(postgres, "room")
    storage = open_storage(database.uri)
    ((most,),) = postgres.query("select current_setting('max_connections')::int")
    ((kept,),) = postgres.query("select current_setting('superuser_reserved_connections')::int")
    free = (most - kept - BESIDE) // CONNECTIONS
    deadline = time.monotonic() + 30
    while not has_room(storage, free):  # connections of the lines above are on their way out
        assert time.monotonic() < deadline
    with pytest.raises(ConfigError, match=rf"give workers {free} or fewer"):
        check_room(storage, free + 1)
    postgres.query(f"alter role {database.user} connection limit 4")
    check_room(storage, 4 - BESIDE)
    with pytest.raises(ConfigError, match=r"workers 4: .* allows its role 4 connections"):
        check_room(storage, 4)
    check_room(open_storage(default_storage(tmp_path)), 1000)  # a file has no such limit


def has_room(storage: optuna.storages.RDBStorage, workers: int) -> bool:
    try:
        check_room(storage, workers)
    except ConfigError:
        return False
    return True


@pytest.mark.doors
def test_a_process_holds_no_more_connections_than_its_budget(postgres: servers.Postgres) -> None:
    database = fresh(postgres, "budget")
    of = plan({"dropout": {"low": 0.0, "high": 1.0}}, search="tpe", pruner="none")
    study = found_study("s", open_storage(database.uri), of, n_trials=12)
    most = 0
    for _ in range(12):
        proposal = propose(study, of, study.ask())
        complete(study, of, proposal, [{"best/val/auc": 0.5}])
        ((held,),) = postgres.query(
            "select count(*) from pg_stat_activity where usename = %s", database.user
        )
        most = max(most, held)
    assert most == CONNECTIONS


@pytest.mark.doors
def test_one_connection_is_enough_to_join(postgres: servers.Postgres) -> None:
    """Else eight workers that begin at once would hold sixteen for a moment."""
    database = fresh(postgres, "joining")
    open_storage(database.uri).engine.dispose()
    postgres.query(f"alter role {database.user} connection limit 1")
    assert open_storage(database.uri).get_all_studies() == []


@pytest.mark.doors
def test_a_restarted_server_is_taken_up_again(postgres: servers.Postgres) -> None:
    """Its connections are closed from the server's side, as a restart does."""
    database = fresh(postgres, "restart")
    of = plan({"loss": {"choices": ["ce"]}}, search="random", pruner="none")
    study = found_study("s", open_storage(database.uri), of, n_trials=2)
    postgres.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", database.user
    )
    again, _ = join_study("s", study._storage._backend)
    assert complete(again, of, propose(again, of, again.ask()), [{"best/val/auc": 0.5}]) == [0.5]
