"""Start MLflow's server from the parts that the environment names.

    python start.py serve    wait for the database and the bucket, then become `mlflow server`
    python start.py bucket   wait for the object store, then make the bucket if it is missing
    python start.py check    exit 0 when the server answers an API call (the health check)

POSTGRES_HOST, _PORT, _DB, _USER, _PASSWORD and S3_BUCKET name the stores; MLFLOW_S3_ENDPOINT_URL,
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are boto3's and MLflow's own.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

WAIT_S = float(os.environ.get("STORES_WAIT_S", "60"))
HOSTS = "mlflow,mlflow:*,localhost,localhost:*,127.0.0.1,127.0.0.1:*"


class NotYet(Exception):
    """A store did not do what was asked; it may still be starting."""


def serve() -> None:
    """Replace this process by `mlflow server`; stop with one line when a store does not answer."""
    until_it_works(connect_database, "PostgreSQL")
    until_it_works(make_bucket, "the object store")
    defaults = {
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": "5000",
        "MLFLOW_WORKERS": "2",
        "MLFLOW_SERVER_ALLOWED_HOSTS": HOSTS,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, not used here
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Workers x (5 + 5) connections stay far below PostgreSQL's 100, which Optuna shares.
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "5",
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "5",
    }
    # By environment and not as arguments: arguments, password included, show in the process list.
    stores = {
        "MLFLOW_BACKEND_STORE_URI": database_uri(),
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{setting('S3_BUCKET')}/mlflow",
        "MLFLOW_SERVE_ARTIFACTS": "true",  # clients need no key of the object store
        "PYTHONPATH": str(Path(__file__).resolve().parent / "plugins"),  # and no way to it
    }
    os.execvpe("mlflow", ["mlflow", "server"], {**defaults, **os.environ, **stores})


def check() -> None:
    """Ask an API route: /health also answers when the database is gone or the Host is refused."""
    address = f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}"
    body = json.dumps({"max_results": 1}).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/search",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            json.load(answer)["experiments"]
    except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
        sys.exit(f"start.py check: {address} does not serve experiments: {error}")


def database_uri() -> str:
    """URI of the database; parts are quoted, since a random password may hold any character.

    The driver is named: SQLAlchemy would read a bare postgresql:// as one that is not installed.
    """
    user, password = (quote(setting(f"POSTGRES_{part}"), safe="") for part in ("USER", "PASSWORD"))
    host, port = setting("POSTGRES_HOST"), os.environ.get("POSTGRES_PORT", "5432")
    database = quote(setting("POSTGRES_DB"), safe="")
    return f"postgresql+psycopg2://{user}:{password}@{host}:{port}/{database}"


def connect_database() -> None:
    """Open and close one connection."""
    import psycopg2

    try:
        psycopg2.connect(
            host=setting("POSTGRES_HOST"),
            port=os.environ.get("POSTGRES_PORT", "5432"),
            dbname=setting("POSTGRES_DB"),
            user=setting("POSTGRES_USER"),
            password=setting("POSTGRES_PASSWORD"),
            connect_timeout=5,
        ).close()
    except psycopg2.OperationalError as error:
        raise NotYet(str(error)) from error


def make_bucket() -> None:
    """Make the bucket unless it is there."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=setting("MLFLOW_S3_ENDPOINT_URL"),
        region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1}),
    )
    bucket = setting("S3_BUCKET")
    try:
        if bucket not in {entry["Name"] for entry in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError) as error:
        raise NotYet(str(error)) from error


def until_it_works(attempt: Callable[[], None], name: str) -> None:
    """Repeat `attempt` for WAIT_S seconds; end the program with its last error."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return attempt()
        except NotYet as error:
            if time.monotonic() > deadline:
                line = " ".join(str(error).split())
                sys.exit(f"start.py: {name} does not answer after {WAIT_S:.0f} s: {line}")
        time.sleep(0.5)


def setting(name: str) -> str:
    """Value of the environment variable `name`; end the program when it is missing."""
    value = os.environ.get(name, "")
    if not value:
        sys.exit(f"start.py: {name} is missing in the environment; see tracking_server/README.md")
    return value


def bucket() -> None:
    """Wait for the object store and make the bucket."""
    until_it_works(make_bucket, "the object store")


ACTIONS = {"serve": serve, "bucket": bucket, "check": check}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ACTIONS:
        sys.exit(
            f"start.py: one of {', '.join(ACTIONS)} is expected, not {' '.join(sys.argv[1:])!r}"
        )
    ACTIONS[sys.argv[1]]()
