"""A newer release: no server starts on another's schema, and an upgrade can be taken back."""

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import schema
import servers
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from keeping_stores import Stores, opened_stores

pytestmark = pytest.mark.doors
SCHEMAS = {"runs": schema.RUNS, "mlflow_auth": schema.USERS, "optuna": schema.STUDIES}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Prepared stores, MLflow's database owned by a role without rights, as in the stack."""
    with ExitStack() as stack:
        empty = opened_stores(stack, tmp_path)
        own = {"user": "runs", "password": "the role of MLflow", "database": "runs"}
        made = dataclasses.replace(
            empty,
            postgres=dataclasses.replace(empty.postgres, **own),
            administrator=empty.postgres,
        )
        made.prepare()
        yield made


def database(stores: Stores, name: str) -> servers.Postgres:
    """A database as its own role."""
    if name == "runs":
        return stores.postgres
    passwords = {"mlflow_auth": servers.AUTH_DB_PASSWORD, "optuna": servers.OPTUNA_DB_PASSWORD}
    own = {"user": name, "password": passwords[name], "database": name}
    return dataclasses.replace(stores.postgres, **own)


def held(stores: Stores, name: str) -> str:
    [(found,)] = database(stores, name).query(f"SELECT version_num FROM {SCHEMAS[name].table}")
    return str(found)


def make_former(stores: Stores, name: str) -> str:
    """The tables of the last revision but one, as an older release left them; that revision."""
    former = SCHEMAS[name].revisions()[-2]
    own = database(stores, name)
    engine = sqlalchemy.create_engine(own.uri, poolclass=sqlalchemy.pool.NullPool)
    if name == "runs":
        from mlflow.store.db.utils import _get_alembic_config
        from mlflow.store.tracking.dbmodels.initial_models import Base

        Base.metadata.create_all(engine)
        config = _get_alembic_config(own.uri)
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, former)
    elif name == "mlflow_auth":
        pytest.importorskip("flask_wtf", reason="flask-wtf is not installed (the extra `server`)")
        with warnings.catch_warnings(action="ignore"):  # MLflow's own
            from mlflow.server.auth.db.utils import migrate

            migrate(engine, former)
    else:
        from optuna.storages import RDBStorage

        RDBStorage(own.uri, engine_kwargs={"poolclass": sqlalchemy.pool.NullPool})
        # the newest revision of Optuna 5 only adds an index, under a name that new tables lack
        own.query("UPDATE alembic_version SET version_num = %s", former)
    engine.dispose()
    assert held(stores, name) == former
    return former


def serve(stores: Stores, *words: str, **settings: str) -> str:
    """The one line with which the server refuses to start."""
    server = servers.tracking_server(
        stores.folder / "server", stores.postgres, stores.minio, **settings
    )
    refused = server.start(*(words or ["serve"]), timeout_s=60)
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_wanted_revision_is_the_one_that_alembic_finds(name: str) -> None:
    """The scripts are read as text here; Alembic imports them."""
    import mlflow
    import optuna

    root = Path({"mlflow": mlflow, "optuna": optuna}[SCHEMAS[name].package].__file__).parent
    config = Config()
    config.set_main_option("script_location", str((root / SCHEMAS[name].folder).parent))
    scripts = ScriptDirectory.from_config(config)
    assert SCHEMAS[name].wanted() == scripts.get_current_head()
    every = [each.revision for each in scripts.walk_revisions()]
    assert SCHEMAS[name].revisions() == every[::-1]


@pytest.mark.parametrize(
    ("name", "words"),
    [("runs", "serve"), ("mlflow_auth", "serve"), ("optuna", "dashboard")],
)
def test_no_program_starts_on_the_schema_of_another_release(
    stores: Stores, name: str, words: str
) -> None:
    former, newest = make_former(stores, name), SCHEMAS[name].wanted()
    line = serve(stores, words, MLFLOW_AUTH="on")
    assert line == (
        f"start.py: the database {name}: schema {former} is older than this image's {newest}: "
        "run make upgrade"
    )
    assert held(stores, name) == former
    database(stores, name).query(f"UPDATE {SCHEMAS[name].table} SET version_num = 'f00d'")
    line = serve(stores, words, MLFLOW_AUTH="on")
    assert f"the database {name}: schema f00d is newer than this image's {newest}: " in line
    assert held(stores, name) == "f00d"
    said = stores.refused("upgrade")
    assert f"the database {name} is of a newer release than MLflow" in said
    assert not list(stores.folder.glob("backups/*"))


def test_an_upgrade_dumps_first_and_can_be_taken_back(stores: Stores) -> None:
    """All three databases as a release before this one left them."""
    former = {name: make_former(stores, name) for name in SCHEMAS}
    own = stores.postgres
    own.query("INSERT INTO experiments (name, lifecycle_stage) VALUES ('kept', 'active')")

    assert "upgraded runs, mlflow_auth, optuna to MLflow" in stores.done("upgrade")
    assert {name: held(stores, name) for name in SCHEMAS} == {
        name: each.wanted() for name, each in SCHEMAS.items()
    }
    assert own.query("SELECT name FROM experiments") == [("kept",)]
    index = "SELECT count(*) FROM pg_indexes WHERE indexname = 'trials_study_id_key'"
    assert database(stores, "optuna").query(index) == [(1,)]
    assert "have the schemas of MLflow" in stores.done("upgrade")
    own.query("INSERT INTO experiments (name, lifecycle_stage) VALUES ('later', 'active')")

    [dump] = stores.folder.glob("backups/*-before-upgrade")
    assert "it is for rollback" in stores.refused("restore", str(dump))
    stores.done("rollback", str(dump))
    assert {name: held(stores, name) for name in SCHEMAS} == former
    assert own.query("SELECT name FROM experiments") == [("kept",)]
    for name in SCHEMAS:
        owners = database(stores, name).query(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        )
        assert owners == [(database(stores, name).user,)]
    # and the way back from the way back
    [dump] = stores.folder.glob("backups/*-before-rollback")
    stores.done("rollback", str(dump))
    names = own.query("SELECT name FROM experiments ORDER BY name")
    assert names == [("kept",), ("later",)]


def test_a_store_that_was_never_served_needs_no_upgrade(stores: Stores) -> None:
    assert "have the schemas of MLflow" in stores.done("upgrade")
    assert not list(stores.folder.glob("backups/*"))
