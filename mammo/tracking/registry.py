"""The registry of models, and what a promotion reads of the runs behind them."""

import os
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from mammo.errors import TrackingError
from mammo.lineage import WITHDRAWN, Graph
from mammo.registrar import Evaluation, Scores, Version
from mammo.tracking.answers import Refused
from mammo.tracking.server import ServerAway
from mammo.tracking.store import Tracking

PICKLES = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
NOTE_LENGTH = 5000  # MLflow stores no longer description


class Registry:
    """Versions and aliases in MLflow's registry; `work` is where datasets are kept."""

    def __init__(self, tracking: Tracking, work: Path) -> None:
        self._tracking, self._client, self._work = tracking, tracking.client, work
        self._ask = tracking.server.ask

    @cached_property
    def graph(self) -> Graph:
        """Every run of the store, as it was when this was first asked for."""
        return Graph(self._tracking.nodes())

    def evaluations(self, run_id: str) -> list[Evaluation]:
        """Of the model of a run, newest first; of a generator, of the datasets sampled from it."""
        users = self.graph.users(run_id)
        judged = {user for setting, user in users if setting == "model"}
        for setting, user in users:
            if setting == "generator":
                judged |= {each for name, each in self.graph.users(user) if name == "synthetic"}
        nodes = [self.graph.nodes[each] for each in sorted(judged)]
        wanted = [each for each in nodes if each.step == "evaluate" and each.status == "FINISHED"]
        runs = [self._tracking.get(each.run_id) for each in wanted]
        runs.sort(key=lambda run: run.info.start_time, reverse=True)
        return [self._evaluation(run) for run in runs]

    def _evaluation(self, run: MlflowRun) -> Evaluation:
        node, params = self.graph.nodes[run.info.run_id], run.data.params
        (data,) = node.inputs.get("data", [""])
        return Evaluation(
            node.run_id,
            self.digest_of(data) or data,
            _asked(params, "split"),
            _asked(params, "aggregate"),
            run.data.tags.get("mammo.model_digest", ""),
            dict(run.data.metrics),
            node.inputs,
        )

    def digest_of(self, run_id: str) -> str:
        node = self.graph.nodes.get(run_id)
        return node.digest if node else ""

    def dataset(self, digest: str) -> Path:
        """Folder of the dataset: in the work folder, else fetched from the run that made it."""
        from mammo.references import resolve

        maker = self.graph.maker(digest)
        folder = self._work / "datasets" / digest
        text = f"runs:/{maker}/dataset" if maker else str(folder)
        return resolve(text, "dataset", "data", tracking=self._tracking, work=self._work).path

    def copied(self, run_id: str, path: str, into: Path) -> Path:
        place = into / run_id / path
        if not place.exists():
            self._tracking.download(run_id, path, place)
        return place

    def has(self, run_id: str, path: str) -> bool:
        return self._tracking.has_artifact(run_id, path)

    def served(self, uri: str) -> Scores:
        os.environ[PICKLES] = "false"
        with warnings.catch_warnings():  # MLflow's own: on the first import of its pyfunc
            warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType")
            import mlflow.pyfunc

            try:
                model = mlflow.pyfunc.load_model(uri)
            except MlflowException as error:
                line = str(error).splitlines()[0]
                raise TrackingError(f"{uri} cannot be loaded through MLflow: {line}") from None

        def scores(asked: Any, params: Mapping[str, Any]) -> Any:
            return model.predict(asked, params=dict(params) or None)

        return scores

    def holder(self, name: str, alias: str) -> Version | None:
        found = self._client.get_model_version_by_alias
        try:
            return _version(self._ask(found, name, alias, kept=Refused))
        except Refused as refused:
            if _code(refused) in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise TrackingError(f"the registry refuses {name}@{alias}: {refused}") from refused

    def versions(self, run_id: str) -> list[Version]:
        """Registered versions that are of a run."""
        found = self._ask(self._client.search_model_versions, f"run_id = '{run_id}'")
        return sorted(map(_version, found), key=lambda each: (each.name, int(each.number)))

    def add(
        self, name: str, run_id: str, path: str, *, tags: Mapping[str, str], note: str
    ) -> Version:
        try:
            self._ask(self._client.create_registered_model, name, kept=Refused)
        except Refused as refused:
            if _code(refused) != "RESOURCE_ALREADY_EXISTS":
                raise TrackingError(f"the registry refuses {name}: {refused}") from refused
        source = f"{self._tracking.get(run_id).info.artifact_uri}/{path}"
        made = self._ask(
            *(self._client.create_model_version, name, source, run_id),
            tags=dict(tags),
            description=_cut(note),
        )
        return _version(made)

    def point(self, name: str, alias: str, number: str) -> None:
        self._ask(self._client.set_registered_model_alias, name, alias, number)

    def unpoint(self, name: str, alias: str) -> None:
        self._ask(self._client.delete_registered_model_alias, name, alias)

    def remove(self, version: Version) -> None:
        self._ask(self._client.delete_model_version, version.name, version.number)

    def tag(self, version: Version, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            place = (version.name, version.number)
            self._ask(self._client.set_model_version_tag, *place, key, value)

    def note(self, version: Version, line: str) -> None:
        """Write a line above what the version's description says; once is enough."""
        place = (version.name, version.number)
        held = self._ask(self._client.get_model_version, *place).description or ""
        if line not in held:
            text = _cut(f"{line}\n\n{held}".strip())
            self._ask(self._client.update_model_version, *place, text)


def withdrawn(tracking: Tracking, run_id: str, digest: str) -> str:
    """Patients for whose sake a run, or what has this digest, was withdrawn; empty for none."""
    if run_id:
        try:
            patients = str(tracking.get(run_id).data.tags.get(WITHDRAWN, ""))
        except TrackingError:  # a run of another store, or of one that is away
            patients = ""
        if patients or not digest:
            return patients
    query = f"tags.`mammo.digest` = '{digest}' and tags.`{WITHDRAWN}` != ''"
    try:
        found = tracking.everywhere(query, limit=1)
    except ServerAway:  # offline nobody can say
        return ""
    return str(found[0].data.tags[WITHDRAWN]) if found else ""


def _code(refused: Refused) -> str:
    """MLflow's word for why it refused; any other than the awaited one is told."""
    return str(getattr(refused.__cause__, "error_code", ""))


def _asked(params: Mapping[str, str], name: str) -> str:
    """The value of a setting that counted; `mlflow run` quotes texts."""
    return params.get(f"effective.{name}", params.get(name, "")).strip("'\"")


def _version(found: Any) -> Version:
    return Version(found.name, str(found.version), str(found.run_id), dict(found.tags or {}))


def _cut(note: str) -> str:
    return note if len(note) <= NOTE_LENGTH else note[: NOTE_LENGTH - 2].rstrip() + " …"
