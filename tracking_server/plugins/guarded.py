"""MLflow's server less what no setting of it switches off.

- Who makes an experiment may name any place for its files. The server would then read and write
  that place with its own rights: its own disk, or in the bucket what belongs to others.
- The Assistant runs commands on the server's host for callers on its loopback.
- Roles, which are not used here (users.py permits), tell every user what each may do.
- Writes from foreign pages are refused below /api and /ajax-api alone, but /graphql and /v1/traces
  take them too.
"""

import json
import os
from typing import Any

from mlflow.server.security_utils import get_allowed_origins_from_env, should_block_cors_request

CLOSED = {
    "/mlflow/assistant": "the Assistant is switched off here",
    "/mlflow/roles/": "roles are not used here; the administrator permits by make user",
}
OPEN = {"s3", "mlflow-artifacts", "runs", "models"}  # schemes of places; all lead to the first
CREATE = "/experiments/create"
OF_AN_EXPERIMENT = {"name", "tags"}
LONGEST = 1 << 20  # bytes of a request that makes an experiment


def create_app() -> Any:
    """The ASGI application that `mlflow server --app-name mammo` serves."""
    close_other_places()
    if os.environ.get("MLFLOW_AUTH", "").lower() == "on":
        from mlflow.server.auth import create_app as with_login

        return Guarded(with_login())
    from mlflow.server.fastapi_app import app

    return Guarded(app)


def close_other_places() -> None:
    """Let MLflow open no place but the stack's own, whatever a client has it noted."""
    # MLflow registers this store while it imports the registry, so that has to come first.
    from mlflow.store.artifact.artifact_repository_registry import (
        get_registered_artifact_repositories,
    )
    from proxied_s3 import ProxiedS3, closed

    registered: dict[str, Any] = get_registered_artifact_repositories()
    if registered["s3"] is not ProxiedS3:
        raise RuntimeError("MLflow did not take proxied_s3.py; its own store would open any bucket")
    registered.update(dict.fromkeys(registered.keys() - OPEN, closed))


class Guarded:
    """An ASGI application behind the refusals."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.application(scope, receive, send)
        path = scope.get("path", "")
        for part, reason in CLOSED.items():
            if part in path:
                return await _refuse(send, 403, reason)
        origin = dict(scope["headers"]).get(b"origin", b"").decode(errors="replace")
        if should_block_cors_request(origin, scope["method"], get_allowed_origins_from_env()):
            return await _refuse(send, 403, "a page of another site may not write here")
        if CREATE in path and scope["method"] == "POST":
            body = await _read(receive)
            if not _plain(body):
                wanted = "an experiment's files lie where the server puts them: leave the place out"
                return await _refuse(send, 400, wanted)
            receive = _again(body, receive)
        await self.application(scope, receive, send)


def _plain(body: bytes) -> bool:
    """Whether the request names nothing but what an experiment is called and tagged."""
    try:
        content = json.loads(body)
    except ValueError:
        return False
    return isinstance(content, dict) and not {
        key for key, value in content.items() if value and key not in OF_AN_EXPERIMENT
    }


async def _read(receive: Any) -> bytes:
    """The body of a request; one that is too long is read as empty."""
    body = b""
    while len(body) <= LONGEST:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
    return b""


def _again(body: bytes, receive: Any) -> Any:
    """A `receive` that gives the body once more, then what comes after it."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> Any:
        return pending.pop() if pending else await receive()

    return given


async def _refuse(send: Any, status: int, reason: str) -> None:
    """Answer as MLflow words its errors, so that clients show the reason."""
    code = "PERMISSION_DENIED" if status == 403 else "INVALID_PARAMETER_VALUE"
    body = json.dumps({"error_code": code, "message": reason}).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
