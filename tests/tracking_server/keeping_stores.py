"""keep.py as an administrator calls it, on a real PostgreSQL and MinIO without Compose."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import servers

KEEP = servers.ROOT / "tracking_server" / "keep.py"


@dataclass(frozen=True)
class Stores:
    """A PostgreSQL and a MinIO; `environment` is what keep.py is told of them."""

    postgres: servers.Postgres
    minio: servers.Minio
    folder: Path
    bucket: str = "mlflow"
    administrator: servers.Postgres | None = None  # where MLflow's role is not the superuser

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "POSTGRES_PROGRAMS": str(servers._postgres_programs()),
            "POSTGRES_HOST": self.postgres.host,
            "POSTGRES_PORT": str(self.postgres.port),
            "POSTGRES_DB": self.postgres.database,
            "POSTGRES_USER": self.postgres.user,
            "POSTGRES_PASSWORD": self.postgres.password,
            "POSTGRES_ADMIN_USER": (self.administrator or self.postgres).user,
            "POSTGRES_ADMIN_PASSWORD": (self.administrator or self.postgres).password,
            "AUTH_DB_PASSWORD": servers.AUTH_DB_PASSWORD,
            "OPTUNA_DB_PASSWORD": servers.OPTUNA_DB_PASSWORD,
            "S3_BUCKET": self.bucket,
            "MLFLOW_S3_ENDPOINT_URL": self.minio.url,
            "AWS_ACCESS_KEY_ID": self.minio.access_key,
            "AWS_SECRET_ACCESS_KEY": self.minio.secret_key,
        }

    def prepare(self) -> None:
        """Make databases, roles and the bucket, as the stack does before its server starts."""
        command = [sys.executable, servers.START, "prepare"]
        subprocess.run(command, env=self.environment, check=True)

    def keep(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run keep.py in `folder`."""
        return subprocess.run(
            [sys.executable, KEEP, *words],
            env={**self.environment, **settings},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def done(self, *words: str, **settings: str) -> str:
        """What keep.py says when it succeeds."""
        result = self.keep(*words, **settings)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(self, *words: str, **settings: str) -> str:
        """The one line with which keep.py refuses."""
        result = self.keep(*words, **settings)
        assert result.returncode == 1
        [line] = result.stderr.splitlines()
        return line

    def put(self, key: str, content: bytes) -> None:
        self.minio.client().put_object(Bucket=self.bucket, Key=key, Body=content)

    def objects(self) -> dict[str, bytes]:
        """Every object of the bucket by key."""
        client = self.minio.client()
        keys = [each["Key"] for each in self.listing()]
        return {key: client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def listing(self) -> list[dict[str, Any]]:
        pages = self.minio.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [each for page in pages for each in page.get("Contents", [])]


def opened_stores(stack: ExitStack, folder: Path) -> Stores:
    """A PostgreSQL and a MinIO with an empty, versioned bucket, for as long as `stack` lasts."""
    try:
        postgres = stack.enter_context(servers.running_postgres())
        minio = stack.enter_context(servers.running_minio(folder / "minio"))
    except servers.Absent as absent:
        pytest.skip(str(absent))
    client = minio.client()
    client.create_bucket(Bucket="mlflow")
    client.put_bucket_versioning(Bucket="mlflow", VersioningConfiguration={"Status": "Enabled"})
    return Stores(postgres, minio, folder)


def last_json(text: str) -> Any:
    return json.loads(text.splitlines()[-1])
