"""The tracking store: runs, lineage, artifacts to read and the registry."""

import contextlib
import logging
import os
import random
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

import mlflow
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from mammo.errors import MammoError, TrackingError
from mammo.lineage import PREFIX, Node
from mammo.tracking import ownership
from mammo.tracking.answers import UNWRITABLE, Away, Refused, asked, is_unknown, unwritable
from mammo.tracking.delivery import IDENTITY
from mammo.tracking.outbox import Outbox, now_ms
from mammo.tracking.sender import LONGEST_S
from mammo.tracking.view import View

LOG = logging.getLogger("mammo")
Answer = TypeVar("Answer")
CHILD_S = 0.8  # a child run is not waited for longer: training goes on within a second
FAILED_S = 10.0  # a step that failed waits no longer for the server: its user waits too
_LINKS = {"mammo.reused", "mammo.continues"}  # empty runs that point to the real one


class ServerAway(TrackingError):
    """The tracking server does not answer, or must not be asked."""


class Tracking:
    """A connection to the tracking store that MLflow's own variables name.

    What is written goes into journals below `work`, the work folder, and from there to the store;
    what is read waits for that. `offline`: the server is never asked, `mammo sync` sends it all.
    """

    def __init__(self, work: Path | None = None, *, offline: bool = False) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        # who waits and for how long is decided here, not within each request
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # it logs the whole traceback of what it then raises, and we tell
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self._away_since = 0.0  # when the server was first missed; 0 while it answers
        self._close_by = 0.0  # when the last step waits no longer
        self.address = mlflow.get_tracking_uri()
        self.offline = offline
        self.client = mlflow.MlflowClient()
        if not offline:
            _refuse_absent_server(self.address)
            assert self.experiment_id  # asked for now: what is wrong with it is told at the start
        home = work or Path(os.environ.get("MAMMO_HOME") or ".mammo").expanduser().absolute()
        self.outbox = Outbox(self.client, self.address, home / "spool", offline=offline)

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close(_seconds("MAMMO_CLOSE_S", 300))
        else:
            with contextlib.suppress(TrackingError):  # the step has failed of another reason
                self.close(FAILED_S)

    @cached_property
    def experiment_id(self) -> str:
        return "" if self.offline else self._patiently(self._experiment)

    def create_run(self, name: str, step: str, parent_id: str = "") -> str:
        """Open a new run and return its id.

        Where the server does not answer at once, a child run has one of our own, which `get` and
        all else here understand; a run without a parent is waited for.
        """
        tags = {key: value for key, value in resolve_tags().items() if key != MLFLOW_PARENT_RUN_ID}
        identity = uuid.uuid4().hex
        tags |= {MLFLOW_RUN_NAME: name, "mammo.step": step, IDENTITY: identity, **ownership.mark()}
        about = {"kind": "about", "id": identity, "name": name, "time": now_ms(), "tags": tags}
        about |= {"experiment_id": self.experiment_id, "experiment": _experiment_name()}
        if parent_id and self.outbox.is_local(parent_id):
            about["parent"] = parent_id
        if parent_id:
            tags[MLFLOW_PARENT_RUN_ID] = self.outbox.server_id(parent_id)
        delivery = self.outbox.create(about)
        if delivery is None:
            return identity
        delivery.beating = True
        wait_s = CHILD_S if parent_id and self._is_remote else _wait_s()
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
        reason = delivery.complaint if delivery.hopeless else self._silence()
        self.outbox.abandon(identity)
        raise TrackingError(reason)

    def get(self, run_id: str) -> MlflowRun:
        """The run, or a TrackingError that says where it was looked for."""
        try:
            return self._read(self._get, run_id)
        except ServerAway:
            view = self.outbox.view(run_id)
            if view is None:
                raise
            return view.run()

    def _get(self, run_id: str) -> MlflowRun:
        try:
            return asked(self.client.get_run, self.outbox.server_id(run_id))
        except Refused as refused:
            real = self.outbox.known(run_id)
            if real and real != run_id:
                return asked(self.client.get_run, real)
            if not is_unknown(refused):
                raise
            raise TrackingError(
                f"run {run_id!r} does not exist at {self.address}; "
                "check the id and MLFLOW_TRACKING_URI"
            ) from None

    def real_id(self, run_id: str) -> str:
        """The server's id of a run, `run_id` itself where it has none yet."""
        if not self.outbox.is_local(run_id):
            return self.outbox.server_id(run_id)
        try:
            return str(self.get(run_id).info.run_id)
        except TrackingError:
            return run_id

    def find(
        self, query: str, limit: int = 50_000, experiments: list[str] | None = None
    ) -> list[MlflowRun]:
        """Runs that match `query`, newest first, by default of the current experiment."""
        return self._read(self._find, query, limit, experiments)

    def _find(self, query: str, limit: int, experiments: list[str] | None) -> list[MlflowRun]:
        found: list[MlflowRun] = []
        token = None
        while len(found) < limit:
            page = asked(
                self.client.search_runs,
                experiments or [self.experiment_id],
                query,
                max_results=min(1000, limit),
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                break
        return found

    def finished(self, fingerprint: str, parent_id: str = "") -> MlflowRun | None:
        """The newest finished run with this fingerprint, if given among those of a parent."""
        query = f"tags.`mammo.fingerprint` = '{fingerprint}' and attributes.status = 'FINISHED'"
        if parent_id:
            query += f" and tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.real_id(parent_id)}'"
        try:
            return next(iter(self.find(query, limit=1)), None)
        except ServerAway as away:
            if not self.offline:
                LOG.warning("%s; only runs of this work folder are reused", away)
        tags = {"mammo.fingerprint": fingerprint} | (
            {MLFLOW_PARENT_RUN_ID: self.outbox.server_id(parent_id)} if parent_id else {}
        )
        return next((each.run() for each in self._views(tags) if each.status == "FINISHED"), None)

    def children(self, run_id: str) -> list[MlflowRun]:
        try:
            return self.find(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.real_id(run_id)}'")
        except ServerAway:
            return [each.run() for each in self._views({MLFLOW_PARENT_RUN_ID: run_id})]

    def measured(self, run_id: str) -> dict[str, float]:
        """Last metrics of a run, with those of the evaluations of its model."""
        run = self.get(run_id)
        values, places = dict(run.data.metrics), {self.experiment_id, run.info.experiment_id}
        names = sorted({run_id, run.info.run_id, run.data.tags.get(IDENTITY, run_id)})
        found: list[MlflowRun] = []
        for name in names:
            query = f"tags.`mammo.input.model` = '{name}' and attributes.status = 'FINISHED'"
            try:
                found += self.find(query, experiments=sorted(places))
            except ServerAway:
                found += [e.run() for e in self._views({"mammo.input.model": name})]
        for each in sorted(found, key=lambda each: int(each.info.start_time or 0)):
            values |= each.data.metrics  # the newest evaluation has the last word
        return values

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """Values of a metric by step; of a step logged twice the later one."""
        real = self.real_id(run_id)
        try:
            logged = self._read(self.client.get_metric_history, real, metric)
        except ServerAway:
            view = self.outbox.view(run_id)
            if view is None:
                raise
            logged = view.history.get(metric, [])
        ordered = sorted(logged, key=lambda each: (each.step, each.timestamp))
        return {each.step: each.value for each in ordered}

    def experiment(self, name: str) -> list[MlflowRun]:
        """Every run of a step in the experiment of that name, oldest first; TrackingError for none.

        Runs that only point to another one are left out.
        """
        found = self._read(self.client.get_experiment_by_name, name)
        if found is None:
            raise TrackingError(
                f"{name!r} is neither a run nor an experiment at {self.address}; check it and "
                "MLFLOW_TRACKING_URI"
            )
        runs = self.find("tags.`mammo.step` != ''", experiments=[found.experiment_id])
        return [run for run in reversed(runs) if not run.data.tags.keys() & _LINKS]

    def running(self) -> list[MlflowRun]:
        """Every run of a step that is not over, in all experiments."""
        places = self._read(self.client.search_experiments)
        query = "tags.`mammo.step` != '' and attributes.status = 'RUNNING'"
        return self.find(query, experiments=[each.experiment_id for each in places])

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

    def claim(self, run_id: str) -> None:
        """Take up a run that the server has; TrackingError where another process writes it.

        Of two that come at once the one that wrote last goes on.
        """
        if not (self.offline or self.outbox.is_local(run_id)):
            found = self.get(run_id)
            ownership.refuse_second(found)
            mine = ownership.mark()
            for name, value in mine.items():
                self._patiently(self.client.set_tag, run_id, name, value)
            ownership.refuse_second(self.get(run_id))
        self.outbox.beat(run_id)

    def settle(self) -> None:
        """Have all that was logged sent before a step ends well, as far as the server is there.

        TrackingError names what it refused.
        """
        if not self.offline:
            self._close_by = time.monotonic() + _seconds("MAMMO_CLOSE_S", 300)
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
                why = "recorded offline" if self.offline else self._silence()
                LOG.warning(
                    "%s: %d runs wait in %s; send them with: mammo sync",
                    *(why, len(left), self.outbox.root),
                )

    def is_open(self, run_id: str) -> bool:
        """Whether a run still waits for its end, as far as is known."""
        view = self.outbox.view(run_id)
        if view is not None and view.status != "RUNNING":
            return False
        try:
            return bool(self.get(run_id).info.status == "RUNNING")
        except ServerAway:
            return True

    def parent_of(self, run_id: str) -> str:
        """Id of the run that started this one; empty for none."""
        return str(self.get(run_id).data.tags.get(MLFLOW_PARENT_RUN_ID, ""))

    def download(self, run_id: str, path: str, into: Path, *, proof: str = "") -> None:
        """Copy the artifact folder `path` of a run to `into`, which appears when it is whole.

        A folder there that lacks the file `proof` is not whole and gives way.
        """
        into.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=".download-") as folder:
            got = self._fetched(run_id, path, folder)
            if proof and into.is_dir() and not (into / proof).is_file():
                into.replace(Path(folder) / "not-whole")  # goes with the temporary folder
            if not into.exists():
                got.replace(into)

    def _fetched(self, run_id: str, path: str, folder: str) -> Path:
        real = self.real_id(run_id)
        try:
            return Path(self._read(self.client.download_artifacts, real, path, folder))
        except ServerAway:
            kept = self.outbox.kept(run_id, path)
            if not kept:
                raise
            for name, place in kept.items():
                target = Path(folder) / path / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place, target)
            return Path(folder) / path
        except TrackingError as error:
            raise TrackingError(f"run {run_id} has no artifact {path!r}: {error}") from None

    def nodes(self) -> list[Node]:
        """Every run of a step, in all experiments, as lineage sees it."""
        places = self._read(self.client.search_experiments)
        runs = self.find("tags.`mammo.step` != ''", experiments=[e.experiment_id for e in places])
        return [_node(run) for run in runs if not run.data.tags.keys() & _LINKS]

    def has_artifact(self, run_id: str, path: str) -> bool:
        folder = path.rpartition("/")[0] or None
        real = self.real_id(run_id)
        try:
            found = self._read(self.client.list_artifacts, real, folder)
            return any(item.path == path for item in found)
        except ServerAway:
            view = self.outbox.view(run_id)
            return view is not None and view.holds(path)
        except TrackingError:  # a store that is gone holds nothing
            return False

    def model_run(self, uri: str) -> str:
        """Run id behind `models:/<name>@<alias>` or `models:/<name>/<version>`."""
        name, _, alias = uri.removeprefix("models:/").partition("@")
        try:
            if alias:
                version = self._read(self.client.get_model_version_by_alias, name, alias)
            else:
                name, _, number = name.rpartition("/")
                version = self._read(self.client.get_model_version, name, number)
        except ServerAway:
            raise
        except TrackingError:
            raise TrackingError(
                f"{uri!r} is not in the model registry at {self.address}; "
                "write models:/<name>@<alias> or models:/<name>/<version>"
            ) from None
        return str(version.run_id)

    def register(self, run_id: str, name: str, alias: str, tags: Mapping[str, str]) -> str:
        """Make the model of a run a version of `name`, give it `alias`; returns the version."""
        run = self.get(run_id)
        with contextlib.suppress(Refused):  # another version of it is there already
            self._patiently(self.client.create_registered_model, name, kept=Refused)
        version = self._patiently(
            *(self.client.create_model_version, name, f"{run.info.artifact_uri}/model"),
            *(run.info.run_id,),
            tags=dict(tags),
        )
        self._patiently(self.client.set_registered_model_alias, name, alias, version.version)
        return str(version.version)

    def _experiment(self) -> str:
        by_id = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if by_id:
            return by_id
        name = _experiment_name()
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return str(self.client.create_experiment(name))
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} was deleted; restore it or set MLFLOW_EXPERIMENT_NAME"
            )
        return str(found.experiment_id)

    def _views(self, tags: Mapping[str, str]) -> list[View]:
        """Runs known here that have all of `tags`, newest first."""
        return [e for e in self.outbox.views() if tags.items() <= e.tags.items()]

    def _read(self, request: Callable[..., Answer], *args: Any) -> Answer:
        """What the server says once it has all that was logged before."""
        if not self.offline:
            self.outbox.flush(self._longest_s())
        return self._patiently(request, *args)

    def _patiently(
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
        deadline, pause = time.monotonic() + self._longest_s(), 0.2
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
                    raise ServerAway(f"{self._silence()} ({away})") from None
                threading.Event().wait(min(left, pause * random.uniform(0.5, 1.0)))
                pause = min(2 * pause, LONGEST_S)
            else:
                self._away_since = 0.0
                return answer

    def _longest_s(self) -> float:
        """How long to wait for the server now."""
        if not self._away_since:
            return _wait_s()
        return max(CHILD_S, self._away_since + _wait_s() - time.monotonic())

    @property
    def _is_remote(self) -> bool:
        return str(self.address).startswith("http")

    def _silence(self) -> str:
        return f"the tracking server at {self.address} does not answer"


def connected() -> Tracking | None:
    """The tracking store, where one is there already and answers; None makes none."""
    address = mlflow.get_tracking_uri()
    parts = urlparse(address)
    place = Path(parts.path.removeprefix("/") if parts.scheme == "sqlite" else parts.path)
    if parts.scheme in ("sqlite", "file", "") and not place.exists():
        return None
    try:
        return Tracking()
    except (TrackingError, MlflowException):
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


def _experiment_name() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")


def _wait_s() -> float:
    """Seconds that a read waits for a server that is away."""
    return _seconds("MAMMO_TRACKING_WAIT_S", 60)


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise TrackingError(
            f"{variable} {text!r} cannot be used; give a number of seconds"
        ) from None


def _node(run: MlflowRun) -> Node:
    tags = run.data.tags
    inputs = {
        key.removeprefix(PREFIX): value.split(",")
        for key, value in tags.items()
        if key.startswith(PREFIX)
    }
    return Node(
        run.info.run_id,
        tags["mammo.step"],
        run.info.run_name,
        run.info.status,
        tags.get("mammo.digest", ""),
        tags.get(MLFLOW_PARENT_RUN_ID, ""),
        inputs,
        tags.get(IDENTITY, ""),
    )


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
