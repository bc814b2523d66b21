"""Users of the server and what each may do, through MLflow's own API.

    user list                              everyone, with what they were permitted
    user add NAME                          prints the password it made, once
    user password NAME                     a new password
    user remove NAME
    user permit NAME experiment WHICH LEVEL   WHICH: an experiment's name, or * for all
    user permit NAME model WHICH LEVEL        WHICH: a registered model's name, or * for all

LEVEL is READ, EDIT (write runs and versions), MANAGE (delete and permit too) or NONE. Who makes an
experiment or a model manages it; what nobody permitted is closed.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from api import Refused, administrator, call
from settings import stop, switched_on

LEVELS = ("READ", "EDIT", "MANAGE", "NONE")
KINDS = {"experiment": "experiment", "model": "registered_model"}
USERS, PERMISSIONS = "/api/2.0/mlflow/users", "/api/3.0/mlflow/users/permissions"


def manage(arguments: list[str]) -> None:
    """Carry out one `user …` command."""
    if not switched_on("MLFLOW_AUTH"):
        stop("user: nobody logs in here; set MLFLOW_AUTH=on in .env and run make server")
    actions: dict[str, tuple[int, Callable[..., None]]] = {
        "list": (0, show),
        "add": (1, add),
        "password": (1, renew_password),
        "remove": (1, remove),
        "permit": (4, permit),
    }
    name, *values = arguments or [""]
    count, action = actions.get(name, (-1, show))
    if len(values) != count:
        lines = [line.strip() for line in (__doc__ or "").splitlines() if "    user " in line]
        stop(f"user {' '.join(arguments)}: expected one of {'; '.join(lines)}")
    try:
        action(*values)
    except Refused as refusal:
        stop(f"user {' '.join(arguments)}: {refusal}")
    except OSError as error:
        stop(f"user {' '.join(arguments)}: the server does not answer: {error}")


def show() -> None:
    """One line a user: the name and each permission."""
    for user in call("GET", f"{USERS}/list")["users"]:
        held = call("GET", f"{PERMISSIONS}/list", username=user["username"])["permissions"]
        grants = sorted(f"{_which(grant)} {grant['permission']}" for grant in held)
        rights = "everything" if user["is_admin"] else ", ".join(grants) or "own experiments"
        print(f"{user['username']}: {rights}")


def add(name: str) -> None:
    """Make the user and print the password."""
    if name in {user["username"] for user in call("GET", f"{USERS}/list")["users"]}:
        stop(f"user add: there is a user {name}; user password {name} makes another password")
    password = secrets.token_urlsafe(18)
    call("POST", f"{USERS}/create", username=name, password=password)
    print(f"{name} {password}")


def renew_password(name: str) -> None:
    """Give the user another password and print it."""
    if name == administrator():
        stop(f"user password: {name}'s is MLFLOW_AUTH_ADMIN_PASSWORD in .env; change it there")
    password = secrets.token_urlsafe(18)
    call("PATCH", f"{USERS}/update-password", username=name, password=password)
    print(f"{name} {password}")


def remove(name: str) -> None:
    """Remove the user; experiments and runs stay."""
    if name == administrator():
        stop(f"user remove: {name} is the administrator, whom the server itself needs")
    call("DELETE", f"{USERS}/delete", username=name)


def permit(name: str, kind: str, which: str, level: str) -> None:
    """Set what the user may do with one experiment or registered model, or with all."""
    if kind not in KINDS or level not in LEVELS:
        stop(f"user permit: {kind} {level}: expected {'|'.join(KINDS)} and {'|'.join(LEVELS)}")
    target = {"resource_type": KINDS[kind], "resource_id": _identifier(kind, which)}
    with suppress(Refused):  # there was none
        call("POST", f"{PERMISSIONS}/revoke", username=name, **target)
    if level != "NONE":
        call("POST", f"{PERMISSIONS}/grant", username=name, permission=level, **target)


def _identifier(kind: str, which: str) -> str:
    """What MLflow calls it: an experiment's number, a model's name, or * for all."""
    if which == "*":
        return which
    if kind == "model":
        found = call("GET", "/api/2.0/mlflow/registered-models/get", name=which)
        return str(found["registered_model"]["name"])
    found = call("GET", "/api/2.0/mlflow/experiments/get-by-name", experiment_name=which)
    return str(found["experiment"]["experiment_id"])


def _which(grant: dict[str, Any]) -> str:
    """An experiment by its name again, since numbers say nothing to a reader."""
    kind, identifier = grant["resource_type"], grant["resource_pattern"]
    if kind == "experiment" and identifier != "*":
        with suppress(Refused):  # of one that is gone for good only the number is left
            found = call("GET", "/api/2.0/mlflow/experiments/get", experiment_id=identifier)
            identifier = found["experiment"]["name"]
    return f"{kind} {identifier}"
