"""Real PostgreSQL, MinIO and MLflow servers on loopback, for as long as a test needs them."""

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
START = ROOT / "tracking_server" / "start.py"
# One PostgreSQL serves several tracking servers in a session, and roles are its own.
AUTH_DB_PASSWORD, OPTUNA_DB_PASSWORD = (f"a:b/c@%{secrets.token_hex(8)}" for _ in range(2))


class Absent(Exception):
    """A program that a server fixture needs is not on this machine."""


@dataclass(frozen=True)
class Postgres:
    port: int
    user: str
    password: str
    database: str
    host: str = "127.0.0.1"

    @property
    def uri(self) -> str:
        """Address for SQLAlchemy (MLflow and Optuna)."""
        password = quote(self.password, safe="")
        return (
            f"postgresql+psycopg2://{self.user}:{password}@{self.host}:{self.port}/{self.database}"
        )

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of one statement, run in a connection of its own."""
        import psycopg2

        connection = psycopg2.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=self.database,
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, values)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


@dataclass(frozen=True)
class Minio:
    port: int
    access_key: str
    secret_key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Any:
        """S3 client of boto3."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )


@dataclass(frozen=True)
class TrackingServer:
    port: int
    bucket: str
    postgres: Postgres
    minio: Minio
    environment: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Make databases, roles and the bucket, as the stack does before the server starts."""
        prepared = self.start("prepare")
        if prepared.returncode:
            raise RuntimeError(f"start.py prepare: {prepared.stderr}")

    def start(
        self, *arguments: str, timeout_s: float = 300, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """One command of tracking_server/start.py with this server's settings, and its output."""
        return subprocess.run(
            [sys.executable, START, *arguments],
            env={**self.environment, **settings},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


SERVE: list[Any] = [sys.executable, START, "serve"]


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """PostgreSQL with one database and a password that a URI must quote."""
    programs = _postgres_programs()
    # Not in pytest's folder, which is closed to others: PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="mammo-postgres-"))
    account: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        account |= {"user": "postgres", "group": "postgres", "extra_groups": []}
    server = Postgres(free_port(), "mlflow", f"p@ss:w/rd%{secrets.token_hex(8)}", "postgres")
    password_file = folder / "password"
    password_file.write_text(server.password)
    try:
        subprocess.run(
            [
                *(programs / "initdb", "-D", folder / "data", "-U", server.user),
                *("--pwfile", password_file, "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **account,
        )
        command = [
            *(programs / "postgres", "-D", folder / "data", "-p", str(server.port), "-k", folder),
            *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
        ]
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for clients to leave.
        with running(command, folder / "log", stop=signal.SIGINT, **account) as process:
            wait_until(lambda: server.query("SELECT 1"), process, folder / "log", timeout_s=30)
            yield server
    finally:
        shutil.rmtree(folder)


@contextmanager
def running_minio(folder: Path) -> Iterator[Minio]:
    """MinIO with its data in `folder`."""
    program = minio_program()
    folder.mkdir(parents=True, exist_ok=True)
    server = Minio(free_port(), "mammo", secrets.token_hex(16))
    command = [
        *(program, "server", "--quiet", "--address", f"127.0.0.1:{server.port}"),
        *("--console-address", f"127.0.0.1:{free_port()}", folder / "data"),
    ]
    environment = {
        **os.environ,
        "MINIO_ROOT_USER": server.access_key,
        "MINIO_ROOT_PASSWORD": server.secret_key,
    }
    with running(command, folder / "log", env=environment) as process:
        wait_until(lambda: server.client().list_buckets(), process, folder / "log", timeout_s=30)
        yield server


@contextmanager
def running_mlflow(
    folder: Path,
    postgres: Postgres,
    minio: Minio,
    *,
    port: int = 0,
    bucket: str = "mlflow",
    **settings: str,
) -> Iterator[TrackingServer]:
    """The server of tracking_server/start.py: runs in PostgreSQL, artifacts through it in MinIO.

    `settings` are variables of the environment, as MLFLOW_AUTH="on".
    """
    server = tracking_server(folder, postgres, minio, port=port, bucket=bucket, **settings)
    server.prepare()
    with running(SERVE, folder / "log", cwd=folder, env=server.environment) as process:
        wait_until(lambda: _answers(server.url), process, folder / "log", timeout_s=90)
        yield server


def tracking_server(
    folder: Path,
    postgres: Postgres,
    minio: Minio,
    *,
    port: int = 0,
    bucket: str = "mlflow",
    **settings: str,
) -> TrackingServer:
    """The server that SERVE starts in its environment, once its stores are prepared."""
    folder.mkdir(parents=True, exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    port = port or free_port()
    environment = {
        **clean,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_ADMIN_USER": postgres.user,
        "POSTGRES_ADMIN_PASSWORD": postgres.password,
        "POSTGRES_DB": postgres.database,
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password,
        "AUTH_DB_PASSWORD": AUTH_DB_PASSWORD,
        "OPTUNA_DB_PASSWORD": OPTUNA_DB_PASSWORD,
        "S3_BUCKET": bucket,
        "MLFLOW_S3_ENDPOINT_URL": minio.url,
        "AWS_ACCESS_KEY_ID": minio.access_key,
        "AWS_SECRET_ACCESS_KEY": minio.secret_key,
        "MLFLOW_PORT": str(port),
        "MLFLOW_WORKERS": "1",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.token_hex(16),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        **settings,
    }
    return TrackingServer(port, bucket, postgres, minio, environment)


@contextmanager
def serving(model: Path, log: Path) -> Iterator[str]:
    """Address of `mlflow models serve` of a packed model, for as long as the block lasts."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model),
        *("--host", "127.0.0.1", "--port", port, "--env-manager", "local", "--workers", 1),
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    url = f"http://127.0.0.1:{port}"
    with running(command, log, env=environment) as process:
        wait_until(lambda: _get(f"{url}/ping"), process, log, timeout_s=240)
        yield url


def ask(url: str, content: Any) -> Any:
    """The predictions of a served model for a request of JSON."""
    body = json.dumps(content).encode()
    request = urllib.request.Request(
        f"{url}/invocations", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())["predictions"]


@contextmanager
def running(
    command: list[Any], log: Path, *, stop: int = signal.SIGTERM, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a session of its own and end it, with its children, when the block ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(stop)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with suppress(ProcessLookupError):  # whatever outlived its parent in this session
            os.killpg(process.pid, signal.SIGKILL)


def wait_until(
    attempt: Callable[[], object], process: subprocess.Popen[bytes], log: Path, *, timeout_s: float
) -> None:
    """Repeat `attempt` until it raises no more; an error shows the end of `log`."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            attempt()
            return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{process.args} does not answer: {error}\n{tail}") from error
        time.sleep(0.1)


def make_certificate(folder: Path, name: str) -> None:
    """certificate.pem and key.pem for `name`, signed by themselves."""
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}"),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )


def basic(name: str, password: str) -> str:
    """The header `Authorization` of a user who logs in."""
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> None:
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/experiments/search",
        data=b'{"max_results": 1}',
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        if error.code != 401:  # a server where users log in answers too
            raise


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=5) as answer:
        answer.read()


def _postgres_programs() -> Path:
    """Folder with initdb and postgres."""
    import pwd

    if os.geteuid() == 0 and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        raise Absent("PostgreSQL refuses to run as root and there is no user `postgres`")
    # Debian keeps the programs off PATH, one folder a version.
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    if not found:
        raise Absent("PostgreSQL's programs (initdb, postgres) are not installed")
    return Path(found).resolve().parent


def minio_program() -> str:
    """The program that .ci/fetch-minio brought, or the one on PATH."""
    fetched = ROOT / ".tools" / "minio"
    found = str(fetched) if fetched.exists() else shutil.which("minio")
    if not found:
        raise Absent("MinIO's program is not installed (.ci/fetch-minio brings it)")
    return found
