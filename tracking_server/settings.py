"""Settings of the stack as the environment has them; a weak secret ends the program in one line."""

import os
import sys
from typing import NoReturn

# One for each door, all different, so that one that leaks opens one door only.
SECRETS = (
    "POSTGRES_ADMIN_PASSWORD",  # PostgreSQL's superuser, who makes the databases and roles
    "POSTGRES_PASSWORD",  # MLflow's role
    "AUTH_DB_PASSWORD",  # role of the users and permissions
    "OPTUNA_DB_PASSWORD",  # role of the studies
    "AWS_SECRET_ACCESS_KEY",  # the object store
    "MLFLOW_AUTH_ADMIN_PASSWORD",  # MLflow's user `admin`
    "MLFLOW_FLASK_SERVER_SECRET_KEY",  # signs the forms of MLflow's user interface
)
SHORTEST = 16  # characters
DEFAULTS = ("admin", "changeme", "change-me", "default", "example", "password", "secret", "1234567")


def stop(message: str) -> NoReturn:
    """End the program with one line."""
    sys.exit(f"start.py: {' '.join(message.split())}")


def setting(name: str) -> str:
    """Value of the environment variable `name`; end the program when it is missing."""
    value = os.environ.get(name, "")
    if not value:
        stop(f"{name} is missing in the environment; see tracking_server/README.md")
    return value


def secret(name: str) -> str:
    """Value of the secret `name`; end the program when it is missing or can be guessed."""
    value = setting(name)
    known = [word for word in DEFAULTS if word in value.lower()]
    if len(value) < SHORTEST:
        fault = f"has {len(value)} characters, {SHORTEST} are the least"
    elif known:
        fault = f"contains {known[0]!r}, which is guessed first"
    elif len(set(value)) < SHORTEST // 2:
        fault = f"has only {len(set(value))} different characters"
    else:
        return value
    stop(f"{name} {fault}; delete its line in .env and run make server, which writes a random one")


def switched_on(name: str) -> bool:
    """Whether the setting `name` says on; off when absent, refused when it says anything else."""
    value = os.environ.get(name, "").lower()
    if value not in {"", "on", "off"}:
        stop(f"{name} is {value!r}; it can be on or off")
    return value == "on"


def check_secrets() -> None:
    """Look at all secrets before a store is made with one of them."""
    values: dict[str, str] = {}
    for name in SECRETS:
        value = secret(name)
        if value in values:
            stop(f"{name} is the same as {values[value]}; let make server write another")
        values[value] = name
    address = os.environ.get("TLS_ADDRESS", "127.0.0.1")
    if address not in {"127.0.0.1", "::1", "localhost"} and not switched_on("MLFLOW_AUTH"):
        stop(f"TLS_ADDRESS {address} lets others in and nobody logs in: set MLFLOW_AUTH=on in .env")
