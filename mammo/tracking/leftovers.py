"""What lies in the artifact store and belongs to no run any more; asked of MLflow's API alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mammo.errors import TrackingError
from mammo.lineage import PREFIX
from mammo.tracking.experiments import every
from mammo.tracking.store import Tracking

DELETED = "DELETED"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_LINKS = ("mammo.continues", "mammo.reused")


@dataclass(frozen=True)
class Books:
    """What the store knows: its runs, and what those that are not deleted name."""

    states: dict[str, str] = field(default_factory=dict)  # run id -> its status, or DELETED
    named: set[str] = field(default_factory=set)  # run ids and digests


@dataclass(frozen=True)
class Leftover:
    """A folder of the artifact store, below `root`, and why nobody needs it."""

    root: str
    path: str
    reason: str

    def delete(self) -> None:
        get_artifact_repository(self.root).delete_artifacts(self.path)


def read_books(tracking: Tracking) -> Books:
    """Ask for every run of every experiment, deleted ones too."""
    books = Books()
    for run in _runs(
        tracking, [each.experiment_id for each in every(tracking.client, ViewType.ALL)]
    ):
        there = run.info.lifecycle_stage == "active"
        books.states[run.info.run_id] = run.info.status if there else DELETED
        if there:
            books.named.add(run.info.run_id)
            books.named.update(each.dataset.digest for each in run.inputs.dataset_inputs)
            for key, value in run.data.tags.items():
                if key.startswith(PREFIX) or key in ("mammo.digest", *_LINKS):
                    books.named.update(value.split(","))
    return books


def leftovers(tracking: Tracking) -> list[Leftover]:
    """Folders of runs, logged models and experiments that the store does not know, sorted."""
    try:
        candidates = list(_folders(tracking))  # before the runs are read: a run comes before files
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"the artifacts of {tracking.address} cannot be listed: {str(error).splitlines()[0]}"
        ) from None
    books = read_books(tracking)
    if candidates and not books.states:
        raise TrackingError(
            f"{tracking.address} knows no run, but there are artifacts; is it the right server?"
        )
    known = {each.experiment_id for each in every(tracking.client, ViewType.ALL)}
    needed = _registered(tracking) | books.named
    found = []
    for root, path, owner in candidates:
        if owner in needed:
            continue
        if _RUN_ID.fullmatch(owner) and owner not in books.states:
            found.append(Leftover(root, path, f"run {owner} does not exist"))
        elif _MODEL_ID.fullmatch(owner) and (reason := _why_model(tracking, owner, books)):
            found.append(Leftover(root, path, reason))
        elif owner.isdigit() and owner not in known:
            found.append(Leftover(root, path, f"experiment {owner} does not exist"))
    return sorted(found, key=lambda each: (each.root, each.path))


def _folders(tracking: Tracking) -> Iterator[tuple[str, str, str]]:
    """Folders that may be a run's, a logged model's or an experiment's: root, path, whose."""
    places = {
        each.experiment_id: each.artifact_location for each in every(tracking.client, ViewType.ALL)
    }
    for place in sorted(set(places.values())):
        repository = get_artifact_repository(place)
        for name in _names(repository):
            if _RUN_ID.fullmatch(name):
                yield place, name, name
            elif name == "models":
                models = [
                    name for name in _names(repository, "models") if _MODEL_ID.fullmatch(name)
                ]
                yield from ((place, f"models/{name}", name) for name in models)
    # the experiments that the server put into one folder, each under its id
    roots = {place[: -len(id_)] for id_, place in places.items() if place.endswith(f"/{id_}")}
    for root in sorted(roots):
        repository = get_artifact_repository(root)
        for name in _names(repository):
            if name.isdigit() and any(_RUN_ID.fullmatch(each) for each in _names(repository, name)):
                yield root, name, name


def _names(repository: Any, path: str | None = None) -> list[str]:
    """Folders directly below `path`."""
    found = repository.list_artifacts(path)
    return [str(each.path).rpartition("/")[2] for each in found if each.is_dir]


def _why_model(tracking: Tracking, model: str, books: Books) -> str:
    try:
        source = tracking.client.get_logged_model(model).source_run_id
    except MlflowException:
        return f"logged model {model} does not exist"
    gone = source and source not in books.states
    return f"logged model {model} is of run {source}, which does not exist" if gone else ""


def _registered(tracking: Tracking) -> set[str]:
    """Ids of runs and logged models that a registered version is of."""
    found: set[str] = set()
    token: str | None = None
    while True:
        page = tracking.client.search_model_versions(max_results=1000, page_token=token)
        for each in page:
            found.update(re.findall(r"m-[0-9a-f]{32}|[0-9a-f]{32}", f"{each.run_id} {each.source}"))
        token = page.token
        if not token:
            return found


def _runs(tracking: Tracking, experiments: list[str]) -> Iterator[Any]:
    token = None
    while experiments:
        page = tracking.client.search_runs(
            experiments, "", ViewType.ALL, max_results=1000, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
