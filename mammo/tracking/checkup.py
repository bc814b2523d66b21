"""What a step needs of the tracking server and of this machine, looked at one by one."""

import os
import platform
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow

from mammo.tracking.answers import asked
from mammo.tracking.server import Server, experiment_name

SLOW_MS = 30  # an answer on loopback takes 5 to 10 ms
APART_S = 2.0  # clocks; a header tells whole seconds
FREE_GB = 5.0  # a dataset, a few checkpoints and the spool
FEWEST = 10  # connections left, so that no worker is refused
WORKER = 2  # connections of a worker of tune: its own and its heartbeat's
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
FOREIGN_HOST = "elsewhere.invalid"
# Packages that read an address of SQLAlchemy, by what stands before its colon.
DRIVERS = {
    "sqlite": "sqlite3",
    "postgresql+psycopg2": "psycopg2",
    "postgresql+psycopg": "psycopg",
    "postgresql": "psycopg",  # what SQLAlchemy 2.1 makes of it
    "mysql+pymysql": "pymysql",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `remedy` is empty where all is well."""

    name: str
    said: str
    remedy: str = ""


def look(storage: str, work: Path) -> Iterator[Check]:
    """Look at one thing after the other; what cannot be looked at is said to be wrong."""
    addresses = [str(mlflow.get_tracking_uri()), *([storage] if storage else [])]
    yield from map(driver, addresses)
    yield disk(work)
    if storage:
        yield guarded("connections", lambda: connections(storage))
    try:
        server = Server(offline=False, asking=False)
    except Exception as error:  # noqa: BLE001 - MLflow's of an address that it cannot use, too
        reason = str(error).partition("\n")[0]
        yield Check("server", reason, "nothing that needs it was looked at")
        return
    for name, attempt in (
        ("versions", versions),
        ("host check", host_check),
        ("files", files),
        ("latency", latency),
        ("clock", clock),
    ):
        yield guarded(name, lambda attempt=attempt: attempt(server))


def guarded(name: str, attempt: Any) -> Check:
    """What `attempt` finds, or why it could not."""
    try:
        found: Check = asked(attempt)
    except Exception as error:  # noqa: BLE001 - told, and the next thing is looked at
        reason = str(error).partition("\n")[0] or type(error).__name__
        return Check(name, f"could not be looked at: {reason[:300]}", "see that first")
    return found


def driver(address: str) -> Check:
    """Whether what reads an address of a database is installed."""
    kind, there, _ = address.partition("://")
    if not there or kind == "file":
        remedy = "set MLFLOW_TRACKING_URI to a server, or to sqlite:///mlflow.db"
        return Check("driver", f"{address} is a folder, which MLflow no longer writes to", remedy)
    if kind in ("http", "https"):
        return Check("driver", f"{kind}: the server's own")
    package = DRIVERS.get(kind, kind)
    if find_spec(package):
        return Check("driver", f"{kind} is read by {package}")
    remedy = "install it"
    if kind == "postgresql" and find_spec("psycopg2"):
        remedy = "write postgresql+psycopg2://, which is installed"
    return Check("driver", f"{kind}:// is read by {package}, which is not installed", remedy)


def versions(server: Server) -> Check:
    """Client and server of one release; without a server there is one alone."""
    own = metadata.version("mlflow")
    here = f"mammo {metadata.version('mammo')}, Python {platform.python_version()}, MLflow {own}"
    if not server.is_remote:
        return Check("versions", here)
    there = request(server, "/version").text.strip()
    if there.split(".")[:2] == own.split(".")[:2]:
        return Check("versions", f"{here}, the server's MLflow {there}")
    older = "there: make upgrade" if _parts(there) < _parts(own) else "here: make env"
    return Check("versions", f"{here}, the server's MLflow {there}", f"bring up the one {older}")


def host_check(server: Server) -> Check:
    """Whether the server refuses calls under a foreign name; its /health answers them always."""
    if not server.is_remote:
        return Check("host check", "no server, no name")
    status = request(
        server, "/api/2.0/mlflow/experiments/get?experiment_id=0", Host=FOREIGN_HOST
    ).status_code
    if status == 403:
        return Check("host check", f"called as {FOREIGN_HOST} it answers 403")
    return Check(
        "host check",
        f"called as {FOREIGN_HOST} it answers {status}: a web page could have its name point there",
        "start it by make server, or with --allowed-hosts and the names it goes by",
    )


def files(server: Server) -> Check:
    """Write a file where the experiment's lie, read it back and delete it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    name = experiment_name()
    found = asked(server.client.get_experiment_by_name, name) or asked(
        server.client.get_experiment, "0"
    )
    folder, content = f"doctor-{secrets.token_hex(8)}", secrets.token_bytes(1 << 16)
    store = get_artifact_repository(found.artifact_location)
    with tempfile.TemporaryDirectory() as scratch:
        sent = Path(scratch) / "sent"
        sent.write_bytes(content)
        started = time.perf_counter()
        asked(store.log_artifact, str(sent), folder)
        try:
            got = Path(asked(store.download_artifacts, f"{folder}/sent", scratch))
            same = got.read_bytes() == content
        finally:
            asked(store.delete_artifacts, folder)
        took = time.perf_counter() - started
        left = asked(store.list_artifacts, folder)
    if not same:
        return Check("files", "a file came back changed", "look at the object store's disk")
    if left:
        return Check("files", "a deleted file is still there", "look at the object store's rights")
    return Check("files", f"64 kB written, read back and deleted in {1000 * took:.0f} ms")


def latency(server: Server) -> Check:
    """Median of a small question; the first opens the connection and does not count."""
    times = []
    for _ in range(21):
        started = time.perf_counter()
        asked(server.client.search_experiments, max_results=1)
        times.append(1000 * (time.perf_counter() - started))
    median = statistics.median(times[1:])
    said = f"a question is answered in {median:.1f} ms"
    near = urlparse(server.address).hostname in LOOPBACK
    if not (server.is_remote and near and median > SLOW_MS):
        return Check("latency", said)
    return Check(
        "latency",
        f"{said}, over {SLOW_MS} ms on this machine itself",
        "install uvloop and httptools where the server runs (several workers on asyncio wait 40 ms"
        " for TCP); where users log in, set auth_cache_ttl_seconds = 60; make server does both",
    )


def clock(server: Server) -> Check:
    """The server's clock against this one: heartbeats and metrics bear times of both."""
    if not server.is_remote:
        return Check("clock", "one clock")
    before = time.time()
    told = request(server, "/health").headers.get("Date", "")
    after = time.time()
    # the header is cut to whole seconds
    apart = parsedate_to_datetime(told).timestamp() + 0.5 - (before + after) / 2
    allowed = APART_S + (after - before) / 2
    if abs(apart) <= allowed:
        return Check("clock", f"the server's is within {allowed:.0f} s of this one")
    return Check(
        "clock",
        f"the server's is {apart:+.0f} s from this one",
        "set both by NTP: a heart that beats late counts as dead",
    )


def disk(work: Path) -> Check:
    """Room where datasets, checkpoints and the spool lie."""
    there = next(each for each in (work, *work.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free / 1e9
    said = f"{free:.1f} GB are free in {work}"
    if not os.access(there, os.W_OK):
        return Check("disk", f"{there} cannot be written", "give another --work_dir or MAMMO_HOME")
    if free < FREE_GB:
        remedy = "make room, or give another --work_dir; mammo gc says what may go"
        return Check("disk", said, remedy)
    return Check("disk", said)


def connections(storage: str) -> Check:
    """How many more workers a study's PostgreSQL takes."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    if not storage.startswith("postgresql"):
        return Check("connections", "the studies' store counts none")
    engine = create_engine(storage, poolclass=NullPool)
    with engine.connect() as connection:
        most, used, own_most, own = connection.execute(text(_CONNECTIONS)).one()
    left = most - used
    if own_most >= 0:
        left = min(left, own_most - own)
    said = f"{used} of PostgreSQL's {most} are in use, {left} are left to this role"
    if left < FEWEST:
        remedy = "stop idle workers, or raise max_connections and the role's limit"
        return Check("connections", said, remedy)
    return Check("connections", f"{said}: {left // WORKER} more workers of tune")


# Those that PostgreSQL keeps for its superuser are not counted in; this one is.
_CONNECTIONS = """
SELECT current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
       (SELECT count(*) FROM pg_stat_activity
         WHERE usename = current_user AND backend_type = 'client backend')
"""


def request(server: Server, path: str, **headers: str) -> Any:
    """The answer to a GET, with the credentials and certificates that MLflow's variables name."""
    from mlflow.utils.rest_utils import http_request

    creds = server.client._tracking_client.store.get_host_creds()
    return asked(
        http_request, creds, path, "GET", extra_headers=headers, raise_on_status=False, timeout=10
    )


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2] if part.isdigit()]
