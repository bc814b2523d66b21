"""Start MLflow's server from the parts that the environment names.

    python start.py secrets    exit 0 when no secret is missing, guessable, short or used twice
    python start.py prepare    make what is missing: databases, roles, the versioned bucket
    python start.py serve      wait for the stores, then become `mlflow server`
    python start.py check      exit 0 when the server works (the health check)
    python start.py user …     users and what they may do, where MLFLOW_AUTH is on (users.py)
    python start.py dashboard  Optuna's dashboard of the studies; with `check`, its health check

POSTGRES_HOST, _PORT, _DB, _USER, _PASSWORD and S3_BUCKET name the stores; MLFLOW_S3_ENDPOINT_URL,
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are boto3's and MLflow's own.
"""

import configparser
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from settings import check_secrets, secret, setting, stop, switched_on
from stores import (
    prepare_bucket,
    prepare_databases,
    reach_bucket,
    reach_database,
    runs_database,
    until_it_works,
    users_database,
)

HOSTS = "mlflow,mlflow:*,localhost,localhost:*,127.0.0.1,127.0.0.1:*"
DEFAULTS = {
    "MLFLOW_HOST": "127.0.0.1",
    "MLFLOW_PORT": "5000",
    "MLFLOW_WORKERS": "2",
    # Workers x (5 + 5) connections to each of the two databases.
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "5",
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
SWITCHED_OFF = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, not used here
    "MLFLOW_ENABLE_AI_GATEWAY": "false",  # calls addresses that users name
    "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # a pickled model runs code where it is read
    # A model comes from a run or another model, which the server looks up and asks permission of.
    # The bucket's own address as the source would open the files of all experiments.
    "MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX": (
        r"\A(?:(?:runs|models|mlflow-artifacts):/[^/]|(?:dummy-source|prompt-template)\Z)"
    ),
}


def prepare() -> None:
    """Make the databases, their roles and the bucket; what is there stays as it is."""
    until_it_works(prepare_databases, "PostgreSQL")
    until_it_works(prepare_bucket, "the object store")


def serve() -> None:
    """Replace this process by `mlflow server`; stop with one line when a store does not answer."""
    until_it_works(lambda: reach_database(runs_database()), "PostgreSQL")
    until_it_works(reach_bucket, "the object store")
    # By environment and not as arguments: arguments, password included, show in the process list.
    stores = {
        "MLFLOW_BACKEND_STORE_URI": runs_database().uri,
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{setting('S3_BUCKET')}/mlflow",
        "MLFLOW_SERVE_ARTIFACTS": "true",  # clients need no key of the object store
        "PYTHONPATH": str(Path(__file__).resolve().parent / "plugins"),  # and no way to it
    }
    os.environ.update({**DEFAULTS, **names(), **os.environ, **stores, **SWITCHED_OFF, **uploads()})
    if switched_on("MLFLOW_AUTH"):
        until_it_works(lambda: reach_database(users_database()), "PostgreSQL's database of users")
        require_login()
    else:  # MLflow reads this file in any case, when it is named
        os.environ.pop("MLFLOW_AUTH_CONFIG_PATH", None)
    os.execvp("mlflow", ["mlflow", "server", "--app-name", "mammo"])  # plugins/guarded.py


def names() -> dict[str, str]:
    """Under which names the server may be called, and from whose pages; others get 403."""
    name = os.environ.get("SERVER_NAME", "")
    if not name:
        return {"MLFLOW_SERVER_ALLOWED_HOSTS": HOSTS}
    port = os.environ.get("TLS_PORT", "443")
    return {
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOSTS},{name},{name}:*",
        # The user interface's own writes carry the address of its page.
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"https://{name},https://{name}:{port}",
    }


def uploads() -> dict[str, str]:
    """Files on their way to the object store lie in SCRATCH, emptied of what a crash left there."""
    folder = os.environ.get("SCRATCH", "")
    if not folder:
        return {}
    for left in sorted(Path(folder).iterdir()):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return {"TMPDIR": folder}


def require_login() -> None:
    """Write the configuration of MLflow's basic-auth; make the administrator, or the password anew.

    Here and not in MLflow's workers, which would be started again and again when it fails.
    """
    secret("MLFLOW_FLASK_SERVER_SECRET_KEY")
    password = secret("MLFLOW_AUTH_ADMIN_PASSWORD")
    name = os.environ.setdefault("MLFLOW_AUTH_ADMIN_USERNAME", "admin")
    file = Path(os.environ.setdefault("MLFLOW_AUTH_CONFIG_PATH", "/tmp/mlflow-auth.ini"))
    content = configparser.ConfigParser(interpolation=None)
    content["mlflow"] = {
        "default_permission": os.environ.get("MLFLOW_AUTH_DEFAULT_PERMISSION", "NO_PERMISSIONS"),
        # MLflow's reader takes a single % for its own.
        "database_uri": users_database().uri.replace("%", "%%"),
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        # A password is verified once a minute and worker: 186 ms each time without.
        "auth_cache_ttl_seconds": "60",
    }
    file.unlink(missing_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    with file.open("w") as out:
        content.write(out)

    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(users_database().uri)
    if not store.has_user(name):
        store.create_user(name, password, is_admin=True)
    elif not store.authenticate_user(name, password):
        store.update_user(name, password=password)  # the one in .env holds
    store.engine.dispose()


def check() -> None:
    """The health check of the server."""
    import api

    api.check()


def user(*arguments: str) -> None:
    """One command of users.py."""
    import users

    users.manage(list(arguments))


def studies(what: str = "") -> None:
    """Optuna's dashboard, or its health check."""
    import dashboard

    (dashboard.check if what == "check" else dashboard.show_studies)()


ACTIONS: dict[str, Callable[..., None]] = {
    "secrets": check_secrets,
    "prepare": prepare,
    "serve": serve,
    "check": check,
    "user": user,
    "dashboard": studies,
}

if __name__ == "__main__":
    action, *rest = sys.argv[1:] or [""]
    if action not in ACTIONS or (rest and action not in {"dashboard", "user"}):
        stop(f"one of {', '.join(ACTIONS)} is expected, not {' '.join(sys.argv[1:])!r}")
    ACTIONS[action](*rest)
