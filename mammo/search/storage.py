"""Where a study is kept: PostgreSQL, an SQLite file or a journal file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError

if TYPE_CHECKING:
    import optuna

CONNECTIONS = 1  # that a worker holds at a PostgreSQL server; the process of a trial holds none
_WAIT_S = 60.0  # for an SQLite file that others write


def default_storage(work: Path) -> str:
    """The storage of who gives none: a file in the work folder."""
    return f"sqlite:///{work / 'studies.db'}"


def open_storage(url: str) -> "optuna.storages.BaseStorage":
    """Open the storage at `url`; an empty database gets its tables."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    is_file = url.startswith("sqlite")
    kept: dict[str, Any] = {"connect_args": {"timeout": _WAIT_S}} if is_file else {}
    if not is_file:
        kept = {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_pre_ping": True}
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=kept)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy, drivers and URLs raise types of their own
        reason = str(error).splitlines()[0]
        raise ConfigError(f"storage {shown(url)}: {reason}") from None
    if is_file:
        _lock_whole_transactions(storage.engine)
    return storage


def _lock_whole_transactions(engine: Any) -> None:
    """Let a transaction on SQLite begin before its first look, not before its first change.

    Between the two another process could take the trial that is looked at.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def leave_it_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # the connections of before


def check_room(storage: "optuna.storages.BaseStorage", workers: int) -> None:
    """Refuse more workers than the database has connections left for."""


def shown(url: str) -> str:
    """The address without its password."""
    return url.partition("@")[2] or url
