"""What a request to the tracking server came to: an answer, a refusal, or none for now."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import mlflow
from mlflow.exceptions import MlflowException

from mammo.errors import MammoError

Answer = TypeVar("Answer")
# What is at the bottom of the line, long as a page, in which MLflow tells of a failed request.
_CAUSE = re.compile(
    "(too many [0-9]+ error responses|Connection (refused|reset|aborted)|timed out)"
)
# How SQLite tells that it could not write.
UNWRITABLE = re.compile("(database or disk is full|disk I/O error|write a readonly database)")


def unwritable(error: str) -> str:
    """What to say of a store, a file of this machine, that cannot be written."""
    found = UNWRITABLE.search(error)
    return (
        f"the tracking store {mlflow.get_tracking_uri()} cannot be written "
        f"({found[0] if found else error}); make room there and run the same command again"
    )


_NOT_NOW = {408, 425, 429}
_BUSY = "QueuePool limit"  # of the server's connections to its database, told as a bad request


class Away(Exception):
    """The server does not answer, or cannot for now: the same request may do later.

    `reached`: something answered, though not as asked, so another request may do now.
    """

    def __init__(self, reason: str, *, reached: bool = False) -> None:
        super().__init__(reason)
        self.reached = reached or "error responses" in reason or "Server Error" in reason


class Unauthorized(Away):
    """The server does not know who asks: the same request may do with other credentials."""


class Refused(Exception):
    """The server will never take this request."""


def is_unknown(refused: Refused) -> bool:
    """Whether the server refused because there is no such thing."""
    cause = refused.__cause__
    return isinstance(cause, MlflowException) and cause.get_http_status_code() in (400, 404)


def asked(request: Callable[..., Answer], *args: Any, **settings: Any) -> Answer:
    """The answer to `request`; Away or Refused where there is none, our own errors as they are."""
    try:
        return request(*args, **settings)
    except (Away, Refused, MammoError):
        raise
    except Exception as error:
        found = UNWRITABLE.search(str(error)) or _CAUSE.search(str(error))
        reason = found[0] if found else str(error).partition("\n")[0][:500]
        reason = reason or type(error).__name__
        if _status(error) == 401:
            raise Unauthorized(
                "it does not know these credentials; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD"
            ) from error
        raise (Away if _passes(error) else Refused)(reason) from error


def _passes(error: Exception) -> bool:
    """Whether what made a request fail may pass."""
    status = _status(error)
    if status:
        return status >= 500 or status in _NOT_NOW or _BUSY in str(error)
    if isinstance(error, FileNotFoundError | TypeError | ValueError | KeyError | AttributeError):
        return False
    # connections that break, and what the client of S3 raises, where artifacts go there directly
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _CLIENTS


def _status(error: Exception) -> int:
    """The status of the answer, as of HTTP; 0 for no answer."""
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


_CLIENTS = {"boto3", "botocore", "requests", "urllib3", "s3transfer", "sqlalchemy"}
