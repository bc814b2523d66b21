"""The tracking store: runs, lineage, artifacts to read and the registry."""

import contextlib
import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import mlflow
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from mammo.errors import MammoError, TrackingError
from mammo.lineage import PREFIX, Node
from mammo.tracking.context import told_tags

_LINKS = {"mammo.reused", "mammo.continues"}  # empty runs that point to the real one
# How SQLite tells that it could not write.
_UNWRITABLE = re.compile("(database or disk is full|disk I/O error|write a readonly database)")


class Tracking:
    """A connection to the tracking store that MLflow's own variables name."""

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # it logs the whole traceback of what it then raises, and we tell
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self.address = mlflow.get_tracking_uri()
        _refuse_absent_server(self.address)
        self.client = mlflow.MlflowClient()
        self.experiment_id = self._experiment()

    def create_run(self, name: str, step: str, parent_id: str = "") -> str:
        """Open a new run and return its id."""
        tags = told_tags(resolve_tags())
        tags.pop(MLFLOW_PARENT_RUN_ID, None)
        tags |= {MLFLOW_RUN_NAME: name, "mammo.step": step}
        if parent_id:
            tags[MLFLOW_PARENT_RUN_ID] = parent_id
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=name)
        return str(run.info.run_id)

    def get(self, run_id: str) -> MlflowRun:
        """The run, or a TrackingError that says where it was looked for."""
        try:
            return self.client.get_run(run_id)
        except MlflowException:
            raise TrackingError(
                f"run {run_id!r} does not exist at {self.address}; "
                "check the id and MLFLOW_TRACKING_URI"
            ) from None

    def find(
        self, query: str, limit: int = 50_000, experiments: list[str] | None = None
    ) -> list[MlflowRun]:
        """Runs that match `query`, newest first, by default of the current experiment."""
        found: list[MlflowRun] = []
        token = None
        while len(found) < limit:
            page = self.client.search_runs(
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
            query += f" and tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}'"
        return next(iter(self.find(query, limit=1)), None)

    def children(self, run_id: str) -> list[MlflowRun]:
        return self.find(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'")

    def measured(self, run_id: str) -> dict[str, float]:
        """Last metrics of a run, with those of the evaluations of its model."""
        run = self.get(run_id)
        values, places = dict(run.data.metrics), {self.experiment_id, run.info.experiment_id}
        query = f"tags.`mammo.input.model` = '{run_id}' and attributes.status = 'FINISHED'"
        found = self.find(query, experiments=sorted(places))
        for each in reversed(found):  # the newest evaluation has the last word
            values |= each.data.metrics
        return values

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """Values of a metric by step; of a step logged twice the later one."""
        logged = self.client.get_metric_history(run_id, metric)
        ordered = sorted(logged, key=lambda each: (each.step, each.timestamp))
        return {each.step: each.value for each in ordered}

    def experiment(self, name: str) -> list[MlflowRun]:
        """Every run of a step in the experiment of that name, oldest first; TrackingError for none.

        Runs that only point to another one are left out.
        """
        found = self.client.get_experiment_by_name(name)
        if found is None:
            raise TrackingError(
                f"{name!r} is neither a run nor an experiment at {self.address}; check it and "
                "MLFLOW_TRACKING_URI"
            )
        runs = self.find("tags.`mammo.step` != ''", experiments=[found.experiment_id])
        return [run for run in reversed(runs) if not run.data.tags.keys() & _LINKS]

    def set_status(self, run_id: str, status: str, **tags: str) -> None:
        """Write `tags` (without their prefix `mammo.`, but `error` as it is), then the status.

        A full disk under the store is not told here when what ends is a failure: that has a reason
        of its own, which the user is about to read.
        """
        try:
            for name, value in tags.items():
                key = name if name == "error" else f"mammo.{name}"
                self.client.set_tag(run_id, key, value[:5000])
            if status == "RUNNING":
                self.client.update_run(run_id, status=status)
            else:
                self.client.set_terminated(run_id, status)
        except MlflowException as error:
            if status not in ("FAILED", "KILLED") or not _UNWRITABLE.search(str(error)):
                raise

    def reopen(self, run_id: str) -> None:
        """Go on with a run: RUNNING, and without what it said of its last end."""
        for name in self.get(run_id).data.tags.keys() & {"error", "mammo.stopped", "mammo.pruned"}:
            self.client.delete_tag(run_id, name)
        self.set_status(run_id, "RUNNING")

    def parent_of(self, run_id: str) -> str:
        """Id of the run that started this one; empty for none."""
        return str(self.get(run_id).data.tags.get(MLFLOW_PARENT_RUN_ID, ""))

    def download(self, run_id: str, path: str, into: Path, *, proof: str = "") -> None:
        """Copy the artifact folder `path` of a run to `into`, which appears when it is whole.

        A folder there that lacks the file `proof` is not whole and gives way.
        """
        into.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=".download-") as folder:
            try:
                got = self.client.download_artifacts(run_id, path, folder)
            except (MlflowException, OSError) as error:
                reason = str(error).splitlines()[0]
                raise TrackingError(f"run {run_id} has no artifact {path!r}: {reason}") from None
            if proof and into.is_dir() and not (into / proof).is_file():
                into.replace(Path(folder) / "not-whole")  # goes with the temporary folder
            if not into.exists():
                Path(got).replace(into)

    def nodes(self) -> list[Node]:
        """Every run of a step, in all experiments, as lineage sees it."""
        everywhere = [each.experiment_id for each in self.client.search_experiments()]
        runs = self.find("tags.`mammo.step` != ''", experiments=everywhere)
        return [_node(run) for run in runs if not run.data.tags.keys() & _LINKS]

    def has_artifact(self, run_id: str, path: str) -> bool:
        folder = path.rpartition("/")[0] or None
        try:
            return any(item.path == path for item in self.client.list_artifacts(run_id, folder))
        except (MlflowException, OSError):  # a store that is gone holds nothing
            return False

    def model_run(self, uri: str) -> str:
        """Run id behind `models:/<name>@<alias>` or `models:/<name>/<version>`."""
        name, _, alias = uri.removeprefix("models:/").partition("@")
        try:
            if alias:
                version = self.client.get_model_version_by_alias(name, alias)
            else:
                name, _, number = name.rpartition("/")
                version = self.client.get_model_version(name, number)
        except MlflowException:
            raise TrackingError(
                f"{uri!r} is not in the model registry at {self.address}; "
                "write models:/<name>@<alias> or models:/<name>/<version>"
            ) from None
        return str(version.run_id)

    def register(self, run_id: str, name: str, alias: str, tags: Mapping[str, str]) -> str:
        """Make the model of a run a version of `name`, give it `alias`; returns the version."""
        with contextlib.suppress(MlflowException):  # another version of it is there already
            self.client.create_registered_model(name)
        source = f"{self.get(run_id).info.artifact_uri}/model"
        version = self.client.create_model_version(name, source, run_id, tags=dict(tags))
        self.client.set_registered_model_alias(name, alias, version.version)
        return str(version.version)

    def _experiment(self) -> str:
        by_id = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if by_id:
            return by_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return str(self.client.create_experiment(name))
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} was deleted; restore it or set MLFLOW_EXPERIMENT_NAME"
            )
        return str(found.experiment_id)


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
        found = None if isinstance(error, MammoError) else _UNWRITABLE.search(str(error))
        if not found:
            raise
        raise TrackingError(
            f"the tracking store {mlflow.get_tracking_uri()} cannot be written ({found[0]}); "
            "make room there and run the same command again"
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
