"""What `start.py prepare` makes: databases with their own roles, a bucket that forgets nothing."""

import os
import subprocess
import sys
import urllib.request

import psycopg2
import pytest
import servers

pytestmark = pytest.mark.doors
OTHERS = {
    "AUTH_DB_PASSWORD": servers.AUTH_DB_PASSWORD,
    "OPTUNA_DB_PASSWORD": servers.OPTUNA_DB_PASSWORD,
}


@pytest.fixture(scope="module")
def volume():
    """A PostgreSQL of its own, as a volume of before: its only role is `mlflow`, a superuser."""
    try:
        with servers.running_postgres() as server:
            yield server
    except servers.Absent as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def settings(volume, minio):
    return {
        "PATH": os.environ["PATH"],
        "POSTGRES_HOST": volume.host,
        "POSTGRES_PORT": str(volume.port),
        "POSTGRES_DB": "mlflow",
        "POSTGRES_USER": "mlflow",
        "POSTGRES_PASSWORD": volume.password,
        "POSTGRES_ADMIN_PASSWORD": "Kq7-superuser-vX2mZp9",
        **OTHERS,
        "S3_BUCKET": "stores",
        "MLFLOW_S3_ENDPOINT_URL": minio.url,
        "AWS_ACCESS_KEY_ID": minio.access_key,
        "AWS_SECRET_ACCESS_KEY": minio.secret_key,
        "STORES_WAIT_S": "5",
    }


def prepare(settings, **changes):
    return subprocess.run(
        [sys.executable, servers.START, "prepare"],
        env={**settings, **changes},
        capture_output=True,
        text=True,
        check=False,
    )


def as_role(volume, user, password, database):
    return servers.Postgres(volume.port, user, password, database)


def make_database(volume, name):
    connection = psycopg2.connect(
        host=volume.host,
        port=volume.port,
        user=volume.user,
        password=volume.password,
        dbname="postgres",
    )
    connection.autocommit = True  # as CREATE DATABASE demands
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()


def test_a_volume_of_before_gets_what_is_missing_and_keeps_what_it_had(volume, settings, minio):
    make_database(volume, "mlflow")
    old = as_role(volume, "mlflow", volume.password, "mlflow")
    old.query("CREATE TABLE kept AS SELECT 42 AS answer")
    for _ in range(2):  # the second time there is nothing to make
        done = prepare(settings)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert old.query("SELECT answer FROM kept") == [(42,)]
    administrator = as_role(volume, "postgres", settings["POSTGRES_ADMIN_PASSWORD"], "postgres")
    assert administrator.query(
        "SELECT datname, rolname FROM pg_database JOIN pg_roles r ON r.oid = datdba "
        "WHERE datname IN ('mlflow', 'mlflow_auth', 'optuna') ORDER BY 1"
    ) == [("mlflow", "mlflow"), ("mlflow_auth", "mlflow_auth"), ("optuna", "optuna")]
    assert administrator.query(
        "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles "
        "WHERE rolname IN ('mlflow_auth', 'optuna', 'postgres') ORDER BY 1"
    ) == [
        ("mlflow_auth", False, False, False),
        ("optuna", False, False, False),
        ("postgres", True, False, False),
    ]
    store = minio.client()
    assert store.get_bucket_versioning(Bucket="stores")["Status"] == "Enabled"


def test_a_role_enters_its_own_database_alone(volume, settings):
    assert prepare(settings).returncode == 0
    optuna = ("optuna", settings["OPTUNA_DB_PASSWORD"])
    as_role(volume, *optuna, "optuna").query("CREATE TABLE IF NOT EXISTS own (value int)")
    for database in ("mlflow", "mlflow_auth"):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            as_role(volume, *optuna, database).query("SELECT 1")
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        as_role(volume, "mlflow_auth", optuna[1], "mlflow_auth").query("SELECT 1")


def test_a_changed_password_counts_from_the_next_start(volume, settings):
    assert prepare(settings).returncode == 0
    assert prepare(settings, OPTUNA_DB_PASSWORD="Kq7-changed-'quoted'-vX2").returncode == 0
    changed = as_role(volume, "optuna", "Kq7-changed-'quoted'-vX2", "optuna")
    assert changed.query("SELECT 1") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        as_role(volume, "optuna", settings["OPTUNA_DB_PASSWORD"], "optuna").query("SELECT 1")


def test_an_overwritten_object_can_be_had_back(settings, minio):
    assert prepare(settings).returncode == 0
    store = minio.client()
    first = store.put_object(Bucket="stores", Key="model", Body=b"first")["VersionId"]
    store.put_object(Bucket="stores", Key="model", Body=b"second")
    store.delete_object(Bucket="stores", Key="model")
    read = store.get_object(Bucket="stores", Key="model", VersionId=first)["Body"].read()
    assert read == b"first"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {
                "POSTGRES_PASSWORD": "Kq7-wrong-vX2mZp9LwT",
                "POSTGRES_ADMIN_PASSWORD": "Kq7-wrong-too-vX2mZ",
            },
            "start.py: PostgreSQL does not answer after 1 s: ",
        ),
        (
            {"AWS_SECRET_ACCESS_KEY": "Kq7-wrong-vX2mZp9LwT"},
            "start.py: the object store does not answer after 1 s: ",
        ),
        ({"POSTGRES_PORT": "1"}, "start.py: PostgreSQL does not answer after 1 s: "),
        ({"OPTUNA_DB_PASSWORD": "optuna"}, "OPTUNA_DB_PASSWORD has 6 characters, 16 are the least"),
    ],
)
def test_a_store_that_does_not_open_is_named_in_one_line(settings, changes, reason):
    refused = prepare(settings, STORES_WAIT_S="1", **changes)
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert reason in line
    assert not [value for value in changes.values() if len(value) > 8 and value in line]


def test_the_check_sees_what_mlflows_own_does_not(tmp_path, postgres, minio):
    """Any name is answered, then the bucket is gone: /health stays green."""
    names = {"MLFLOW_SERVER_ALLOWED_HOSTS": "*"}
    with servers.running_mlflow(tmp_path, postgres, minio, bucket="gone", **names) as server:
        failed = server.start("check")
        assert failed.returncode == 1
        assert "answers under any name" in failed.stderr
        minio.client().delete_bucket(Bucket="gone")
        failed = server.start("check")
        assert failed.returncode == 1
        assert "bucket does not exist" in failed.stderr
        with urllib.request.urlopen(f"{server.url}/health", timeout=10) as answer:
            assert answer.read() == b"OK"
