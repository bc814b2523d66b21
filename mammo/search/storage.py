"""Where a study is kept: PostgreSQL, an SQLite file or a journal file."""

from pathlib import Path
from typing import TYPE_CHECKING

from mammo.errors import ConfigError

if TYPE_CHECKING:
    import optuna

HEARTBEAT_S = 60
GRACE_S = 180
MOST_RETRIES = 2  # of a trial whose worker died
CONNECTIONS = 2  # that a worker holds at most at a PostgreSQL server


def default_storage(work: Path) -> str:
    """The storage of who gives none: a file in the work folder."""
    return f"sqlite:///{work / 'studies.db'}"


def open_storage(
    url: str, *, heartbeat_s: int = HEARTBEAT_S, grace_s: int = GRACE_S
) -> "optuna.storages.BaseStorage":
    """Open the storage at `url`; an empty database gets its tables."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy, drivers and URLs raise types of their own
        reason = str(error).splitlines()[0]
        raise ConfigError(f"storage {shown(url)}: {reason}") from None


def check_room(storage: "optuna.storages.BaseStorage", workers: int) -> None:
    """Refuse more workers than the database has connections left for."""


def shown(url: str) -> str:
    """The address without its password."""
    return url.partition("@")[2] or url
