"""PostgreSQL, MinIO and the MLflow server, each of which a test can stop and start again."""

import hashlib
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import servers
from PIL import Image


@dataclass
class Server:
    """A process that comes back with its data at the same port."""

    command: list[Any]
    log: Path
    ready: Callable[[], object]
    options: dict[str, Any]
    end: int = signal.SIGTERM
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        running = servers.running(self.command, self.log, stop=self.end, **self.options)
        process = self._stack.enter_context(running)
        servers.wait_until(self.ready, process, self.log, timeout_s=120)

    def stop(self) -> None:
        self._stack.close()

    def away(self, seconds: float) -> threading.Thread:
        """Stop it now and start it again in `seconds`, while the test goes on."""
        self.stop()
        timer = threading.Timer(seconds, self.start)
        timer.start()
        return timer


@dataclass
class Stack:
    """The three of them."""

    postgres: Server
    minio: Server
    mlflow: Server
    database: servers.Postgres
    store: servers.Minio
    url: str
    bucket: str = "mlflow"

    def rows(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Step and value of each row that the database holds of a metric."""
        return self.database.query(
            "SELECT step, value FROM metrics WHERE run_uuid = %s AND key = %s ORDER BY step, value",
            *(run_id, metric),
        )

    def status(self, run_id: str) -> str:
        return str(self.database.query("SELECT status FROM runs WHERE run_uuid = %s", run_id)[0][0])

    def runs(self) -> list[str]:
        found = self.database.query("SELECT run_uuid FROM runs ORDER BY start_time")
        return [str(row[0]) for row in found]

    def tags(self, run_id: str) -> dict[str, str]:
        found = self.database.query("SELECT key, value FROM tags WHERE run_uuid = %s", run_id)
        return {str(name): str(value) for name, value in found}

    def objects(self, run_id: str) -> dict[str, bytes]:
        """Content of each artifact of a run, by its path, as the bucket holds it."""
        client = self.store.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        marker = f"/{run_id}/artifacts/"
        return {
            key.partition(marker)[2]: client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            for key in keys
            if marker in key
        }


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """All three, ready; they are ended with the block."""
    with ExitStack() as stack:
        database, postgres = _postgres(stack, folder)
        store, minio = _minio(folder)
        tracking, mlflow = _mlflow(folder, database, store)
        for server in (postgres, minio, mlflow):
            if server is mlflow:
                tracking.prepare()
            server.start()
            stack.callback(server.stop)
        yield Stack(postgres, minio, mlflow, database, store, tracking.url)


def _postgres(stack: ExitStack, folder: Path) -> tuple[servers.Postgres, Server]:
    programs = servers._postgres_programs()
    # not in pytest's folder, which is closed to others: PostgreSQL refuses to run as root
    place = Path(tempfile.mkdtemp(prefix="mammo-postgres-"))
    stack.callback(shutil.rmtree, place)
    account: dict[str, Any] = {"cwd": place}
    if os.geteuid() == 0:
        shutil.chown(place, "postgres", "postgres")
        account |= {"user": "postgres", "group": "postgres", "extra_groups": []}
    server = servers.Postgres(servers.free_port(), "mlflow", secrets.token_hex(8), "postgres")
    (place / "password").write_text(server.password)
    initialize = [programs / "initdb", "-D", place / "data", "-U", server.user, "--no-sync"]
    initialize += ["--pwfile", place / "password", "-A", "scram-sha-256", "-E", "UTF8"]
    with servers.running(initialize, folder / "initdb.log", **account) as process:
        assert process.wait(timeout=120) == 0
    command = [programs / "postgres", "-D", place / "data", "-p", server.port, "-k", place]
    command += ["-c", "listen_addresses=127.0.0.1"]
    ready = lambda: server.query("SELECT 1")  # noqa: E731
    # SIGINT is its fast shutdown; SIGTERM would wait for clients to leave
    return server, Server(command, folder / "postgres.log", ready, account, signal.SIGINT)


def _minio(folder: Path) -> tuple[servers.Minio, Server]:
    store = servers.Minio(servers.free_port(), "mammo", secrets.token_hex(16))
    command = [servers.minio_program(), "server", "--quiet"]
    command += ["--address", f"127.0.0.1:{store.port}"]
    command += ["--console-address", f"127.0.0.1:{servers.free_port()}", folder / "objects"]
    names = {"MINIO_ROOT_USER": store.access_key, "MINIO_ROOT_PASSWORD": store.secret_key}
    ready = lambda: store.client().list_buckets()  # noqa: E731
    return store, Server(command, folder / "minio.log", ready, {"env": {**os.environ, **names}})


def _mlflow(folder: Path, database: servers.Postgres, store: servers.Minio) -> tuple[Any, Server]:
    server = servers.tracking_server(folder, database, store)
    options = {"cwd": folder, "env": server.environment}
    ready = lambda: servers._answers(server.url)  # noqa: E731
    return server, Server(servers.SERVE, folder / "mlflow.log", ready, options, signal.SIGKILL)


def picture(step: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The image that is logged at a step."""
    return np.random.default_rng(step).integers(0, 256, (32, 32), np.uint8)


def pixels(png: bytes, folder: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    place = folder / f"{hashlib.sha256(png).hexdigest()}.png"
    place.write_bytes(png)
    with Image.open(place) as image:
        return np.asarray(image)


def checkpoint(step: int) -> bytes:
    """The content of the checkpoint of a step: 3 MB that no other has."""
    return np.random.default_rng(1000 + step).bytes(3 << 20)
