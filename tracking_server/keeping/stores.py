"""What is done beside the stores, with their keys: `keep.py store ACTION`, in the server's image.

    facts     what the databases and the bucket are and hold, as one line of JSON
    export    every object to stdout; those named on stdin, unchanged since, by name alone
    import    objects from stdin into an empty bucket, each read back and compared
    upgrade   bring the databases to the schemas that this image wants

The environment is that of start.py.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from schema import RUNS, STUDIES, USERS, Schema
from stores import Database, all_databases, runs_database

from keeping import frames
from keeping.reach import superuser

# Rows that a server writes into empty tables when it first starts: they are nobody's work.
_FRESH = {
    "alembic_version": 1,
    "alembic_version_auth": 1,
    "experiments": 1,  # Default
    "users": 1,  # the administrator of basic-auth
    "version_info": 1,  # Optuna
    "workspaces": 1,
}


@contextmanager
def in_one_line() -> Iterator[None]:
    """End the program with one line when a store does not answer, or not as it should."""
    import psycopg2

    try:
        yield
    except (psycopg2.Error, *_s3_errors()) as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")


def facts() -> None:
    """Print versions, databases, and what is in them and in the bucket."""
    connection = database()
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        version = cursor.fetchone()[0]
    connection.close()
    names = databases()
    said = {
        "database": setting("POSTGRES_DB"),
        "databases": names,
        "revision": revision(),
        "behind": unlike(names, Schema.is_behind),
        "ahead": unlike(names, Schema.is_ahead),
        "rows": {name: rows(name) for name in names},
        "objects": sum(1 for _ in listed(objects())),
        "clients": clients(names),
        "versions": {"mlflow": metadata.version("mlflow"), "postgres": version},
    }
    print(json.dumps(said))


def export() -> None:
    """Write every object of the bucket to stdout; see keeping.frames."""
    client, bucket = objects(), setting("S3_BUCKET")
    known = {(each["key"], each["etag"], each["modified"]) for each in map(json.loads, sys.stdin)}
    out = sys.stdout.buffer
    for each in listed(client):
        there = {"key": each["Key"], "etag": each["ETag"], "modified": _time(each["LastModified"])}
        if tuple(there.values()) in known:
            frames.send(out, {**there, "same": True})
            continue
        try:
            got = client.get_object(Bucket=bucket, Key=each["Key"])
        except client.exceptions.NoSuchKey:
            continue  # deleted since it was listed, as by gc
        # botocore stumbles over a server's error that carries the checksum of what was asked for
        except (AttributeError, *_s3_errors()) as error:
            frames.send(out, there, _raising(error))
            continue
        header = {
            "key": each["Key"],
            "etag": got["ETag"],
            # the listing tells it more exactly; nothing if it was replaced since
            "modified": there["modified"] if got["ETag"] == there["etag"] else "",
            "content_type": got.get("ContentType", ""),
            "metadata": got.get("Metadata", {}),
        }
        frames.send(out, header, _content(got["Body"], got["ContentLength"]))
    frames.finish(out)


def import_() -> None:
    """Put the objects on stdin into the bucket; when one fails, those that were put go again."""
    from boto3.s3.transfer import TransferConfig

    client, bucket = objects(), setting("S3_BUCKET")
    if next(listed(client), None):
        sys.exit(f"the bucket {bucket} is not empty")
    put = []
    try:
        for header, content in frames.receive(sys.stdin.buffer):
            told = {"ContentType": header["content_type"], "Metadata": header["metadata"]}
            client.upload_fileobj(
                content,
                bucket,
                header["key"],
                ExtraArgs={name: value for name, value in told.items() if value},
                Config=TransferConfig(use_threads=False),
            )
            put.append(header["key"])
            if digest(client, header["key"]) != header["sha256"]:
                raise frames.Broken(f"object {header['key']} does not read as it was written")
    except BaseException as error:
        for key in put:
            client.delete_object(Bucket=bucket, Key=key)
        if isinstance(error, (frames.Broken, *_s3_errors())):
            sys.exit(f"the objects could not be written: {error}")
        raise
    print(json.dumps({"objects": len(put)}))


def unlike(names: Iterable[str], which: Callable[[Schema, str], bool]) -> list[str]:
    """Those of the databases whose schema is, by `which`, not the one that this image wants."""
    own = [each for each in all_databases() if each.name in names]
    return [each.name for each in own if which(each.schema, held(each))]


def upgrade() -> None:
    """Bring the databases to the schemas that this image wants, each as the role that owns it."""
    ways = {RUNS: _upgrade_runs, USERS: _upgrade_users, STUDIES: _upgrade_studies}
    wanting = unlike(databases(), Schema.is_behind)
    for each in all_databases():
        if each.name in wanting:
            ways[each.schema](each.uri)


def _upgrade_runs(uri: str) -> None:
    """`mlflow db upgrade`, in this process: the address with its password is no argument."""
    from mlflow.db import upgrade as command

    command.main([uri], standalone_mode=False)


def _upgrade_users(uri: str) -> None:
    from mlflow.server.auth.db.utils import migrate
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    migrate(engine, "head")
    engine.dispose()


def _upgrade_studies(uri: str) -> None:
    from optuna.storages import RDBStorage

    RDBStorage(uri, skip_compatibility_check=True, skip_table_creation=True).upgrade()


def database(name: str = "") -> Any:
    """A connection of the superuser to the database `name`, by default MLflow's."""
    import psycopg2

    user, password = superuser()
    return psycopg2.connect(
        host=setting("POSTGRES_HOST"),
        port=os.environ.get("POSTGRES_PORT", "5432"),
        dbname=name or setting("POSTGRES_DB"),
        user=user or setting("POSTGRES_USER"),
        password=password or setting("POSTGRES_PASSWORD"),
        connect_timeout=10,
    )


def databases() -> list[str]:
    """All but PostgreSQL's own, MLflow's last: its runs are dumped after what names them."""
    connection = database()
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")
        names = [name for (name,) in cursor.fetchall()]
    connection.close()
    own = setting("POSTGRES_DB")
    return [name for name in names if name not in ("postgres", own)] + [own]


def objects() -> Any:
    """boto3's S3 client of the object store."""
    import boto3

    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.client("s3", endpoint_url=setting("MLFLOW_S3_ENDPOINT_URL"), region_name=region)


def listed(client: Any) -> Iterator[dict[str, Any]]:
    """Every object of the bucket, by key."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=setting("S3_BUCKET"))
    for page in pages:
        yield from page.get("Contents", [])


def digest(client: Any, key: str) -> str:
    """sha256 of an object as the store gives it."""
    import hashlib

    found = hashlib.sha256()
    got = client.get_object(Bucket=setting("S3_BUCKET"), Key=key)
    for piece in _content(got["Body"], got["ContentLength"]):
        found.update(piece)
    return found.hexdigest()


def revision() -> str:
    """Revision of MLflow's database; empty where MLflow has made nothing yet."""
    return held(runs_database())


def held(own: Database) -> str:
    """Revision of one of the stack's databases."""
    connection = database(own.name)
    found = own.schema.held(connection)
    connection.close()
    return found


def rows(name: str) -> dict[str, int]:
    """Rows of each table of a database, under the names that pg_dump gives them."""
    connection = database(name)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
        )
        tables = [table for (table,) in cursor.fetchall()]
        counts = {}
        for table in tables:
            cursor.execute(f"SELECT count(*) FROM {table}")
            counts[table] = cursor.fetchone()[0]
    connection.close()
    return counts


def fresh(counts: dict[str, int]) -> bool:
    """Whether tables hold no more than a server writes when it first starts."""
    return all(count <= _FRESH.get(table.rpartition(".")[2], 0) for table, count in counts.items())


def clients(names: list[str]) -> int:
    """Connections to the databases that are not ours."""
    connection = database()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = ANY(%s) AND pid <> pg_backend_pid()",
            (names,),
        )
        count = int(cursor.fetchone()[0])
    connection.close()
    return count


def setting(name: str) -> str:
    """Value of the environment variable `name`; end the program when it is missing."""
    value = os.environ.get(name, "")
    if not value:
        sys.exit(f"{name} is missing in the environment; see tracking_server/KEEPING.md")
    return value


def _content(body: Any, size: int) -> Iterator[bytes]:
    """The content of an object; Broken when it is cut short or cannot be read on."""
    from urllib3.exceptions import HTTPError

    count = 0
    try:
        for piece in body.iter_chunks(frames.PIECE):
            count += len(piece)
            yield piece
    except (HTTPError, *_s3_errors()) as error:
        raise frames.Broken(f"{type(error).__name__} after {count} of {size} bytes") from error
    if count != size:
        raise frames.Broken(f"it ends after {count} of {size} bytes")


def _raising(error: Exception) -> Iterator[bytes]:
    told = "the store answers with an error" if isinstance(error, AttributeError) else str(error)
    raise frames.Broken(told)
    yield b""


def _s3_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)


def _time(value: Any) -> str:
    return str(value.isoformat())


ACTIONS = {
    "facts": facts,
    "export": export,
    "import": import_,
    "upgrade": upgrade,
}
