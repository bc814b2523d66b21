"""The stores behind the server: PostgreSQL's databases and roles, and the versioned bucket."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from schema import RUNS, STUDIES, USERS, Schema
from settings import secret, setting, stop

WAIT_S = float(os.environ.get("STORES_WAIT_S", "60"))


class NotYet(Exception):
    """A store did not do what was asked; it may still be starting."""


@dataclass(frozen=True)
class Database:
    """A database and the one role that may use it; `connections` is what the role may hold open."""

    name: str
    user: str
    password_setting: str
    connections: int
    schema: Schema

    @property
    def uri(self) -> str:
        """Address for SQLAlchemy; parts are quoted, since a password may hold any character.

        The driver is named: SQLAlchemy would read a bare postgresql:// as one not installed.
        """
        user, password = quote(self.user, safe=""), quote(secret(self.password_setting), safe="")
        host, port = setting("POSTGRES_HOST"), os.environ.get("POSTGRES_PORT", "5432")
        return f"postgresql+psycopg2://{user}:{password}@{host}:{port}/{quote(self.name, safe='')}"


def runs_database() -> Database:
    """MLflow's runs, models and experiments."""
    name, user = setting("POSTGRES_DB"), setting("POSTGRES_USER")
    return Database(name, user, "POSTGRES_PASSWORD", 80, RUNS)


def users_database() -> Database:
    """MLflow's users and what each may do."""
    return Database("mlflow_auth", "mlflow_auth", "AUTH_DB_PASSWORD", 40, USERS)


def studies_database() -> Database:
    """Optuna's studies, whose many workers may not take MLflow's connections."""
    return Database("optuna", "optuna", "OPTUNA_DB_PASSWORD", 60, STUDIES)


def all_databases() -> list[Database]:
    """Each database of the stack; together the roles stay under compose's 200 connections."""
    return [runs_database(), users_database(), studies_database()]


def prepare_databases() -> None:
    """Make what is missing of the databases and roles, and give each role its present password."""
    administrator = administrator_name()
    connection = connect_administrator()
    try:
        connection.autocommit = True  # CREATE DATABASE runs in no transaction
        with connection.cursor() as cursor:
            for database in all_databases():
                if database.user != administrator:
                    _make_role(cursor, database)
                _make_database(cursor, database)
    finally:
        connection.close()


def connect_administrator() -> Any:
    """A connection of the superuser, to the database `postgres`."""
    import psycopg2

    try:
        return _connect(administrator_name(), "POSTGRES_ADMIN_PASSWORD", "postgres")
    except psycopg2.OperationalError as error:
        try:
            _promote_administrator()
        except psycopg2.Error:
            raise NotYet(str(error)) from error
    return _connect(administrator_name(), "POSTGRES_ADMIN_PASSWORD", "postgres")


def administrator_name() -> str:
    return os.environ.get("POSTGRES_ADMIN_USER", "postgres")


def _promote_administrator() -> None:
    """Make the superuser in a volume that was set up with MLflow's role as the only one."""
    from psycopg2 import sql

    connection = _connect(runs_database().user, "POSTGRES_PASSWORD", runs_database().name)
    try:
        with connection, connection.cursor() as cursor:
            name = administrator_name()
            statement = sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
                sql.Identifier(name),
                sql.Literal(_verifier(cursor, name, secret("POSTGRES_ADMIN_PASSWORD"))),
            )
            cursor.execute(statement)
    finally:
        connection.close()


def _make_role(cursor: Any, database: Database) -> None:
    from psycopg2 import sql

    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (database.user,))
    verb = "ALTER" if cursor.fetchone() else "CREATE"
    verifier = _verifier(cursor, database.user, secret(database.password_setting))
    statement = sql.SQL(verb + " ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT {}").format(
        sql.Identifier(database.user), sql.Literal(verifier), sql.Literal(database.connections)
    )
    cursor.execute(statement)


def _make_database(cursor: Any, database: Database) -> None:
    from psycopg2 import sql

    names = {"name": sql.Identifier(database.name), "user": sql.Identifier(database.user)}
    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database.name,))
    if not cursor.fetchone():
        cursor.execute(sql.SQL("CREATE DATABASE {name} OWNER {user}").format(**names))
    cursor.execute(sql.SQL("ALTER DATABASE {name} OWNER TO {user}").format(**names))
    cursor.execute(sql.SQL("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC").format(**names))


def _verifier(cursor: Any, user: str, password: str) -> str:
    """What PostgreSQL stores of a password: a statement that fails is logged, password and all."""
    from psycopg2.extensions import encrypt_password

    return str(encrypt_password(password, user, cursor.connection, "scram-sha-256"))


def reach_database(database: Database) -> None:
    """Open a connection and look at the schema; end the program where it is another image's."""
    import psycopg2

    try:
        connection = _connect(database.user, database.password_setting, database.name)
    except psycopg2.OperationalError as error:
        raise NotYet(str(error)) from error
    fault = database.schema.fault(connection)
    connection.close()
    if fault:
        stop(f"the database {database.name}: {fault}")


def _connect(user: str, password_setting: str, database: str) -> Any:
    import psycopg2

    return psycopg2.connect(
        host=setting("POSTGRES_HOST"),
        port=os.environ.get("POSTGRES_PORT", "5432"),
        dbname=database,
        user=user,
        password=secret(password_setting),
        connect_timeout=5,
    )


def prepare_bucket() -> None:
    """Make the bucket unless it is there, and keep old versions of what is overwritten in it."""
    with _s3_errors():
        client, name = s3_client(), setting("S3_BUCKET")
        if name not in {entry["Name"] for entry in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=name)
        if client.get_bucket_versioning(Bucket=name).get("Status") != "Enabled":
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def reach_bucket() -> None:
    """Ask for the bucket."""
    with _s3_errors():
        s3_client().head_bucket(Bucket=setting("S3_BUCKET"))


def s3_client() -> Any:
    """Client of boto3 that answers or fails within seconds."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=setting("MLFLOW_S3_ENDPOINT_URL"),
        region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        aws_access_key_id=setting("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=secret("AWS_SECRET_ACCESS_KEY"),
        config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1}),
    )


@contextmanager
def _s3_errors() -> Iterator[None]:
    """Turn what boto3 raises into NotYet."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
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
                stop(f"{name} does not answer after {WAIT_S:.0f} s: {error}")
        time.sleep(0.5)
