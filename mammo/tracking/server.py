"""The tracking server as one that may be away: what is asked of it waits, but not for ever."""

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import urlparse

import mlflow

from mammo.errors import TrackingError
from mammo.tracking.answers import UNWRITABLE, Away, Refused, asked, unwritable
from mammo.tracking.context import code_state
from mammo.tracking.experiments import opened
from mammo.tracking.machine import packages
from mammo.tracking.sender import LONGEST_S

Answer = TypeVar("Answer")


def prepare() -> None:
    """Set what MLflow does beside its work, before it is asked for the first time."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # the last line of stdout is the step's, and runs are ended by a thread of their own
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # who waits and for how long is decided here, not within each request
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # it logs the whole traceback of what it then raises, and we tell
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def preload() -> None:
    """Import what the store needs, and find what is the same for all runs, without opening it.

    For a process that others are forked from, which must share no connection.
    """
    prepare()
    if urlparse(str(mlflow.get_tracking_uri())).scheme not in ("http", "https"):
        import_module("mlflow.store.tracking.sqlalchemy_store")
    code_state()
    packages()


class ServerAway(TrackingError):
    """The tracking server does not answer, or must not be asked."""


class Server:
    """The store at the address that MLflow's own variables name."""

    def __init__(self, *, offline: bool) -> None:
        prepare()
        self.address = str(mlflow.get_tracking_uri())
        self.offline = offline
        self.client = mlflow.MlflowClient()
        self._away_since = 0.0  # when it was first missed; 0 while it answers
        if not offline:
            _refuse_absent_server(self.address)
            assert self.experiment_id  # asked for now: what is wrong with it is told at the start

    @property
    def is_remote(self) -> bool:
        return self.address.startswith("http")

    @property
    def silence(self) -> str:
        return f"the tracking server at {self.address} does not answer"

    @cached_property
    def experiment_id(self) -> str:
        """Of the current experiment, which is made where it is not there; empty offline."""
        return "" if self.offline else self.ask(self._experiment)

    def ask(
        self,
        request: Callable[..., Answer],
        *args: Any,
        kept: type[Exception] | tuple[()] = (),
        **settings: Any,
    ) -> Answer:
        """The answer to a request, waited for; TrackingError, or what is to be `kept` of a refusal.

        The wait is for the server, not for each request: once it was in vain the next is short.
        """
        if self.offline:
            raise ServerAway(
                f"only the server at {self.address} knows this; set offline=false, or name a "
                "folder or a run of this work folder"
            )
        deadline, pause = time.monotonic() + self.wait_s, 0.2
        while True:
            try:
                answer = asked(request, *args, **settings)
            except Refused as refused:
                if kept and isinstance(refused, kept):
                    raise
                line = f"the tracking server {self.address} refuses: {refused}"
                raise TrackingError(line) from refused.__cause__
            except Away as away:
                self._away_since = self._away_since or time.monotonic()
                if UNWRITABLE.search(str(away)):
                    raise TrackingError(unwritable(str(away))) from None
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ServerAway(f"{self.silence} ({away})") from None
                threading.Event().wait(min(left, pause * random.uniform(0.5, 1.0)))
                pause = min(2 * pause, LONGEST_S)
            else:
                self._away_since = 0.0
                return answer

    def missed(self, since: float) -> None:
        """It did not answer others since then, a moment of time.monotonic; 0 where it did."""
        self._away_since = self._away_since or since

    @property
    def wait_s(self) -> float:
        """How long to wait for it now."""
        longest = seconds("MAMMO_TRACKING_WAIT_S", 60)
        if not self._away_since:
            return longest
        return max(1.0, self._away_since + longest - time.monotonic())

    def _experiment(self) -> str:
        by_id = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if by_id:
            return by_id
        name = experiment_name()
        found = self.client.get_experiment_by_name(name) or opened(self.client, name)
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} was deleted; restore it or set MLFLOW_EXPERIMENT_NAME"
            )
        return str(found.experiment_id)


def experiment_name() -> str:
    """Name of the current experiment."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")


def seconds(variable: str, default: float) -> float:
    """A number of seconds that the environment may set."""
    text = os.environ.get(variable, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise TrackingError(
            f"{variable} {text!r} cannot be used; give a number of seconds"
        ) from None


def _refuse_absent_server(address: str) -> None:
    """TrackingError within seconds when nothing listens at an http address."""
    parts = urlparse(address)
    if parts.scheme not in ("http", "https"):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except OSError as error:
        raise TrackingError(
            f"no tracking server answers at {address} ({error.strerror or error}); "
            "start it or change MLFLOW_TRACKING_URI"
        ) from None
