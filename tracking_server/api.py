"""Calls to the server's own API from where it runs, by its administrator where users log in."""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from settings import secret, switched_on

FOREIGN_HOST = "elsewhere.invalid"


class Refused(Exception):
    """The server answered with an error; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def administrator() -> str:
    """MLflow's user who may do everything; the password is the one in .env."""
    return os.environ.get("MLFLOW_AUTH_ADMIN_USERNAME", "admin")


def call(method: str, path: str, /, *, host: str = "", **content: Any) -> Any:
    """The JSON that the server answers; `content` goes as the query of a GET, else as the body."""
    address = f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}{path}"
    body = None
    if method == "GET":
        address += f"?{urlencode(content)}" if content else ""
    else:
        body = json.dumps(content).encode()
    request = urllib.request.Request(address, data=body, method=method)
    request.add_header("Content-Type", "application/json")
    if host:
        request.add_header("Host", host)
    if switched_on("MLFLOW_AUTH"):
        account = f"{administrator()}:{secret('MLFLOW_AUTH_ADMIN_PASSWORD')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(account.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=8) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["message"]
        raise Refused(error.code, " ".join(text.split())) from error


def check() -> None:
    """Exit 0 when runs can be read, files be listed and a foreign name is refused.

    MLflow's own /health answers when the database is gone, and is the one page without Host check.
    """
    try:
        call("POST", "/api/2.0/mlflow/experiments/search", max_results=1)["experiments"]
        call("GET", "/api/2.0/mlflow-artifacts/artifacts", path="0/.health")
    except (Refused, OSError, ValueError, KeyError) as error:
        sys.exit(f"start.py check: the server does not serve experiments and files: {error}")
    try:
        call("GET", "/api/2.0/mlflow/experiments/get", host=FOREIGN_HOST, experiment_id="0")
    except Refused as refusal:
        if refusal.status == 403:
            return
    sys.exit(f"start.py check: the server answers under any name, {FOREIGN_HOST} too")
