"""What is read of the store: runs, their numbers and artifacts; of runs not sent, from here."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mlflow.entities import Run as MlflowRun
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mammo.errors import TrackingError
from mammo.lineage import MARKS, PREFIX, Node
from mammo.tracking.answers import Refused, asked, is_unknown
from mammo.tracking.delivery import IDENTITY
from mammo.tracking.experiments import every
from mammo.tracking.outbox import Outbox
from mammo.tracking.server import Server, ServerAway
from mammo.tracking.view import View

LOG = logging.getLogger("mammo")
Answer = TypeVar("Answer")
_OPEN = ("RUNNING", "SCHEDULED")
_LINKS = {"mammo.reused", "mammo.continues"}  # empty runs that point to the real one


class UnknownRun(TrackingError):
    """The server knows no such run."""


class Reading:
    """Questions about runs; each waits until the store has what this process logged before."""

    def __init__(self, server: Server, outbox: Outbox) -> None:
        self.server, self.outbox = server, outbox
        self.address, self.client, self.offline = server.address, server.client, server.offline

    @property
    def experiment_id(self) -> str:
        return self.server.experiment_id

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
            raise UnknownRun(
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

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """Values of a metric by step; of a step logged twice the later one."""
        real = self.real_id(run_id)
        try:
            logged = self._read(self.client.get_metric_history, real, metric)
        except ServerAway:
            view = self.outbox.view(run_id, metric)
            if view is None:
                raise
            logged = view.history
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

    def everywhere(self, query: str, limit: int = 50_000) -> list[MlflowRun]:
        """Runs of all experiments that match `query`, newest first."""
        places = self._read(every, self.client)
        return self.find(query, limit, [each.experiment_id for each in places])

    def running(self) -> list[MlflowRun]:
        """Every run of a step that is not over."""
        return self.everywhere("tags.`mammo.step` != '' and attributes.status = 'RUNNING'")

    def is_open(self, run_id: str) -> bool:
        """Whether a run still waits for its end, as far as is known."""
        view = self.outbox.view(run_id)
        if view is not None and view.status not in _OPEN:
            return False
        try:
            return self.get(run_id).info.status in _OPEN
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
        runs = self.everywhere("tags.`mammo.step` != ''")
        return [_node(run) for run in runs if not run.data.tags.keys() & _LINKS]

    def artifacts(self, run_id: str, folder: str) -> set[str]:
        """Paths of what a folder of a run's artifacts holds; TrackingError where nobody can say."""
        found = self._read(self.client.list_artifacts, self.real_id(run_id), folder or None)
        return {str(item.path) for item in found}

    def has_artifact(self, run_id: str, path: str) -> bool:
        try:
            return path in self.artifacts(run_id, path.rpartition("/")[0])
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

    def _views(self, tags: Mapping[str, str]) -> list[View]:
        """Runs known here that have all of `tags`, newest first."""
        return [e for e in self.outbox.views() if tags.items() <= e.tags.items()]

    def _read(self, request: Callable[..., Answer], *args: Any) -> Answer:
        """What the server says once it has all that was logged before."""
        if not self.offline:
            self.outbox.flush(self.server.patience_s(self.outbox.missed_since))
            self.server.missed(self.outbox.sender.words.since)
        return self.server.ask(request, *args)


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
        {name: tags[name] for name in MARKS if name in tags},
    )
