"""Where a study is kept: a database of PostgreSQL, or an SQLite file of one machine.

Both know heartbeats, without which nobody would miss a dead worker; Optuna's journal files do not.
"""

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mammo.errors import ConfigError

if TYPE_CHECKING:
    import optuna
    from sqlalchemy.engine import URL, Engine

CONNECTIONS = 1  # of a worker to a server: its trials have none
BESIDE = 2  # of the search itself, and of who looks or just begins
PATIENCE_S = 60  # for a connection, or for the lock of an SQLite file
FORMS = "postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE or sqlite:///FILE"
# What another process that makes the same tables at the same moment lets one see
_MEETING = ("already exists", "duplicate key", "UNIQUE constraint failed", "database is locked")
# What a server says that has not yet seen another connection close
_FULL = ("too many clients", "remaining connection slots", "too many connections")
_ATTEMPTS = 10


def given_storage(given: str) -> str:
    """The storage that was given, by default MAMMO_STORAGE, which no list of processes shows."""
    return given or os.environ.get("MAMMO_STORAGE", "")


def default_storage(work: Path) -> str:
    """The storage of who gives none: a file in the work folder."""
    return f"sqlite:///{work / 'studies.db'}"


def open_storage(address: str, *, connections: int = CONNECTIONS) -> "optuna.storages.RDBStorage":
    """Open the storage at `address`; an empty database gets its tables.

    `connections` is the most that this process holds. What is wrong is told in one line, without
    the password of the address.
    """
    import optuna

    url = _read(address)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = _engine_settings(url, connections)
    for attempt in range(_ATTEMPTS):
        try:
            revision = _revision(url, settings)
            if revision is None:
                _made(url, settings).engine.dispose()  # which takes two connections at once
            storage = _opened(url, settings)
            if revision not in (None, storage.get_head_version()):
                raise ConfigError(_other_version(url))
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers and Optuna raise types of their own
            if any(each in str(error) for each in _MEETING + _FULL) and attempt < _ATTEMPTS - 1:
                time.sleep(0.1 * (attempt + 1))
                continue
            raise ConfigError(_reason(url, error)) from None
        if url.get_backend_name() == "sqlite":
            _lock_at_once(storage.engine)
        return storage
    raise AssertionError("the last attempt returns or raises")


def check_room(storage: "optuna.storages.RDBStorage", workers: int) -> None:
    """Refuse more workers than the database has connections for, CONNECTIONS each and BESIDE."""
    import sqlalchemy

    if storage.engine.url.get_backend_name() != "postgresql":
        return
    asked = """
        select current_setting('max_connections')::int
             - current_setting('superuser_reserved_connections')::int
             - coalesce(current_setting('reserved_connections', true), '0')::int,
               (select sum(numbackends) from pg_stat_database),
               (select datconnlimit from pg_database where datname = current_database()),
               (select numbackends from pg_stat_database where datname = current_database()),
               (select rolconnlimit from pg_roles where rolname = current_user)"""
    with storage.engine.connect() as connection:
        most, used, of_database, used_here, of_role = connection.execute(
            sqlalchemy.text(asked)
        ).one()
    free = most - int(used) + 1  # one of those in use is this process's
    what = f"allows {most} connections, {used} are in use"
    for limit, name in ((of_database, "database"), (of_role, "role")):
        if limit >= 0 and limit - used_here + 1 < free:  # -1 is no limit
            free, what = limit - used_here + 1, f"allows its {name} {limit} connections"
    free -= BESIDE
    if workers * CONNECTIONS > free:
        raise ConfigError(
            f"workers {workers}: storage {shown(storage.engine.url)} {what}; give workers "
            f"{max(0, free // CONNECTIONS)} or fewer, or raise the limit of the server"
        )


def storage_errors() -> tuple[type[Exception], ...]:
    """What is raised while a database is away."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

    return StorageInternalError, OperationalError, InterfaceError, TimeoutError


def reason_of(error: BaseException) -> str:
    """Why a storage does not answer, on one line; Optuna's own errors say it by their cause."""
    cause = error.__cause__ or error
    return " ".join(str(getattr(cause, "orig", None) or cause).split())


@contextmanager
def in_plain_words(study_name: str) -> Iterator[None]:
    """A storage that is away is the user's to mend, and told in one line."""
    try:
        yield
    except storage_errors() as error:
        raise ConfigError(
            f"the storage of study {study_name} does not answer ({reason_of(error)}); start it and "
            "the same command again"
        ) from None


def shown(address: "str | URL") -> str:
    """An address without its password."""
    text = address if isinstance(address, str) else address.render_as_string(hide_password=True)
    text = re.sub(r"(://[^:/@\s]*):.*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s]*", r"\1***", text)


def _read(address: str) -> "URL":
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise ConfigError(f"storage {shown(address)!r} is no address; give {FORMS}") from None
    kind = url.get_backend_name()
    if kind == "journal":
        raise ConfigError(
            f"storage {shown(address)}: a journal file has no heartbeats, so the trials of "
            f"dead workers would be lost; give {FORMS}"
        )
    if kind not in ("postgresql", "postgres", "sqlite"):
        raise ConfigError(f"storage {shown(address)} is of no kind that is known; give {FORMS}")
    if kind != "sqlite" and "+" not in url.drivername:  # which SQLAlchemy reads as another driver
        url = url.set(drivername="postgresql+psycopg2")
    return url


def _engine_settings(url: "URL", connections: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": PATIENCE_S,
    }
    if url.get_backend_name() == "sqlite":
        return settings | {"connect_args": {"timeout": PATIENCE_S}}
    # a connection that a server's restart has closed is replaced
    about = {"connect_timeout": 10, "application_name": "mammo tune"}
    return settings | {"pool_pre_ping": True, "connect_args": about}


def _revision(url: "URL", settings: dict[str, Any]) -> str | None:
    """Version of the tables; None where they are not there, or not whole yet.

    Refuses a database of another program, before Optuna puts its tables into it.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, **settings)
    try:
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            if {"studies", "alembic_version"} <= set(tables):
                asked = sqlalchemy.text("select version_num from alembic_version")
                revision: str | None = connection.scalar(asked)
                return revision
    finally:
        engine.dispose()
    if tables and "studies" not in tables and "version_info" not in tables:
        told = ", ".join(sorted(tables)[:3])
        raise ConfigError(
            f"storage {shown(url)} is the database of another program (with tables {told}); give "
            "the search a database of its own"
        )
    return None


def _made(url: "URL", settings: dict[str, Any]) -> "optuna.storages.RDBStorage":
    """Make the tables where there are none, and compare their version with Optuna's."""
    import optuna
    from sqlalchemy.pool import NullPool

    address = url.render_as_string(hide_password=False)
    given = {"connect_args": settings["connect_args"], "poolclass": NullPool}
    return optuna.storages.RDBStorage(address, engine_kwargs=given)


def _opened(url: "URL", settings: dict[str, Any]) -> "optuna.storages.RDBStorage":
    import optuna

    return optuna.storages.RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs=settings,
        skip_compatibility_check=True,
        skip_table_creation=True,
    )


def _lock_at_once(engine: "Engine") -> None:
    """Begin each transaction with SQLite's lock, and write ahead.

    By default Python takes the lock at the first write only, so that two processes read a trial as
    waiting and both take it. A log that is written ahead needs no wait for the disk at each commit;
    what a killed process has written stays, and a power failure costs the last moments.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def leave_it_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were opened before


def _reason(url: "URL", error: Exception) -> str:
    """One line that says why the storage cannot be opened, and what would help."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    for secret in (url.password, unquote(str(url.password or ""))):
        text = text.replace(str(secret), "***") if secret else text
    where = f"storage {shown(url)}"
    if "no longer compatible with the table schema" in text or "Can't locate revision" in text:
        return _other_version(url)
    if "does not exist" in text and "database" in text:
        return f"{where}: the server has no such database; make it with createdb"
    if "password authentication failed" in text or "no password supplied" in text:
        return f"{where}: the server does not take this user and password"
    if "permission denied" in text:
        return f"{where}: {text}; let the user own its database"
    if any(each in text for each in _FULL):
        return f"{where}: the server has no connection left; start fewer workers"
    return f"{where} cannot be opened: {text}"


def _other_version(url: "URL") -> str:
    return (
        f"storage {shown(url)} has the tables of another version of Optuna; run `optuna storage "
        "upgrade --storage` on it, or give the search a new database"
    )
