"""The tracking store: runs are opened, ended and taken up again."""

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import mlflow
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from mammo.errors import MammoError, TrackingError
from mammo.tracking import ownership
from mammo.tracking.answers import UNWRITABLE, unwritable
from mammo.tracking.context import told_tags
from mammo.tracking.delivery import IDENTITY
from mammo.tracking.outbox import Outbox, now_ms
from mammo.tracking.reading import Reading
from mammo.tracking.server import Server, experiment_name, seconds

LOG = logging.getLogger("mammo")
CHILD_S = 0.8  # a child run is not waited for longer: training goes on within a second
FAILED_S = 10.0  # a step that failed waits no longer for the server: its user waits too


class Tracking(Reading):
    """A connection to the tracking store that MLflow's own variables name.

    What is written goes into journals below `work`, the work folder, and from there to the store;
    what is read waits for that. `offline`: the server is never asked, `mammo sync` sends it all.
    """

    def __init__(self, work: Path | None = None, *, offline: bool = False) -> None:
        server = Server(offline=offline)
        home = work or Path(os.environ.get("MAMMO_HOME") or ".mammo").expanduser().absolute()
        outbox = Outbox(server.client, server.address, home / "spool", offline=offline)
        super().__init__(server, outbox)
        self._close_by = 0.0  # when the last step waits no longer

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close(seconds("MAMMO_CLOSE_S", 300))
        else:
            with contextlib.suppress(TrackingError):  # the step has failed of another reason
                self.close(FAILED_S)

    def create_run(self, name: str, step: str, parent_id: str = "") -> str:
        """Open a new run and return its id.

        Where the server does not answer at once, a child run has one of our own, which `get` and
        all else here understand; a run without a parent is waited for.
        """
        tags = told_tags(resolve_tags())
        tags.pop(MLFLOW_PARENT_RUN_ID, None)
        identity = uuid.uuid4().hex
        tags |= {MLFLOW_RUN_NAME: name, "mammo.step": step, IDENTITY: identity, **ownership.mark()}
        about = {"kind": "about", "id": identity, "name": name, "time": now_ms(), "tags": tags}
        about |= {"experiment_id": self.experiment_id, "experiment": experiment_name()}
        if parent_id and self.outbox.is_local(parent_id):
            about["parent"] = parent_id
        if parent_id:
            tags[MLFLOW_PARENT_RUN_ID] = self.outbox.server_id(parent_id)
        delivery = self.outbox.create(about)
        if delivery is None:
            return identity
        delivery.beating = True
        wait_s = CHILD_S if parent_id and self.server.is_remote else self.server.wait_s
        try:
            self.outbox.flush(wait_s, identity)
        except TrackingError:
            self.outbox.abandon(identity)
            raise
        if delivery.run_id:
            self.outbox.name(identity, delivery.run_id)
            return delivery.run_id
        if parent_id and not delivery.hopeless:
            return identity
        reason = delivery.complaint if delivery.hopeless else self.server.silence
        self.outbox.abandon(identity)
        raise TrackingError(reason)

    def set_status(self, run_id: str, status: str, **tags: str) -> None:
        """End a run with `tags` (without their prefix `mammo.`, but `error` as it is)."""
        texts = {
            name if name == "error" else f"mammo.{name}": value[:5000]
            for name, value in tags.items()
        }
        entry = {"kind": "end", "status": status, "time": now_ms(), "tags": texts}
        self.outbox.append(run_id, entry)

    def reopen(self, run_id: str) -> None:
        """Go on with a run: RUNNING, and without what it said of its last end."""
        self.outbox.append(run_id, {"kind": "reopen"})
        self.outbox.append(run_id, {"kind": "tags", "values": ownership.mark()})

    def claim(self, run_id: str, *, wait_s: float = 0.0) -> None:
        """Take up a run that the server has; Taken where another process writes it.

        It is waited for, as long as `wait_s`, until that one is gone or its heart has fallen
        silent. Of two that come at once the one that wrote last goes on.
        """
        deadline = time.monotonic() + wait_s
        while True:
            try:
                self._claim(run_id)
                return
            except ownership.Taken:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1.0)

    def _claim(self, run_id: str) -> None:
        if not (self.offline or self.outbox.is_local(run_id)):
            found = self.get(run_id)
            ownership.refuse_second(found)
            mine = ownership.mark()
            for name, value in mine.items():
                self.server.ask(self.client.set_tag, run_id, name, value)
            ownership.refuse_second(self.get(run_id))
        self.outbox.beat(run_id)

    def hand_on(self, run_id: str) -> None:
        """Leave a run to another process, which claims it; until then it is SCHEDULED.

        What the server has not got stays in the spool, from where that process goes on.
        """
        self.set_status(run_id, "SCHEDULED")
        if not self.offline:
            self.outbox.flush(self.server.wait_s)
        self.complain()
        self.outbox.release(run_id)

    def settle(self) -> None:
        """Have all that was logged sent before a step ends well, as far as the server is there.

        TrackingError names what it refused.
        """
        if not self.offline:
            self._close_by = time.monotonic() + seconds("MAMMO_CLOSE_S", 300)
            self.outbox.flush(self._close_by - time.monotonic())
        self.complain()

    def complain(self) -> None:
        """TrackingError where something that was logged has been refused or lost."""
        said = self.outbox.complaints()
        if said:
            more = f" (and {len(said) - 1} more runs)" if len(said) > 1 else ""
            raise TrackingError(f"{said[0]}{more}")

    def close(self, wait_s: float = FAILED_S) -> None:
        """Send what is left, as far as `wait_s` goes; one line says what stays."""
        if self._close_by:
            wait_s = max(1.0, min(wait_s, self._close_by - time.monotonic()))
        try:
            if not self.offline:
                self.outbox.flush(wait_s)
        finally:
            left = self.outbox.close()
            if left:
                why = "recorded offline" if self.offline else self.server.silence
                LOG.warning(
                    "%s: %d runs wait in %s; send them with: mammo sync",
                    *(why, len(left), self.outbox.root),
                )


def connected() -> Tracking | None:
    """The tracking store, where one is there already and answers; None makes none."""
    address = mlflow.get_tracking_uri()
    parts = urlparse(address)
    place = Path(parts.path.removeprefix("/") if parts.scheme == "sqlite" else parts.path)
    if parts.scheme in ("sqlite", "file", "") and not place.exists():
        return None
    try:
        return Tracking()
    except TrackingError:
        return None


@contextmanager
def store_in_plain_words() -> Iterator[None]:
    """A tracking store that cannot be written is the user's to mend, and told in one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MammoError) or not UNWRITABLE.search(str(error)):
            raise
        raise TrackingError(unwritable(str(error))) from None
