"""The one door to MLflow: runs, numbers, pictures, artifacts, inputs, lineage and the registry."""

import contextlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import mlflow
import numpy as np
from mlflow.entities import Dataset as InputDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from numpy.typing import NDArray

from mammo.errors import MammoError, TrackingError
from mammo.lineage import PREFIX, Node
from mammo.run import Listener, Pruned, Reference, Result, Run, Stopped

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

LOG = logging.getLogger("mammo")
PARAM_LENGTH = 6000  # MLflow cuts longer values
BATCH = 1000  # metrics in one call, MLflow's limit
# Settings that a served generator takes with a request, with the defaults of Generator.sample
DRAWING: dict[str, Any] = {"guidance": 1.0, "steps": 30, "sampler": "auto"}


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
        tags = {key: value for key, value in resolve_tags().items() if key != MLFLOW_PARENT_RUN_ID}
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


class TrackedRun:
    """A run in MLflow; `folder` keeps what is needed to continue it until it is finished."""

    def __init__(
        self,
        tracking: Tracking,
        run_id: str,
        *,
        folder: Path,
        work: Path,
        inputs: Mapping[str, list[Reference]],
        launcher: Any = None,
        listener: Listener | None = None,
    ) -> None:
        self.id = run_id
        self.folder = folder
        self.work = work
        self.inputs = inputs
        self.tracking = tracking
        self._client = tracking.client
        self._launcher = launcher
        self._listener = listener
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(
            json.dumps({"run_id": run_id, "tracking_uri": tracking.address}) + "\n"
        )

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings; one that MLflow already holds with another value as `effective.<name>`."""
        held = dict(self._client.get_run(self.id).data.params)
        new: dict[str, str] = {}
        for name, value in values.items():
            text = as_text(value)[:PARAM_LENGTH]
            if name not in held:
                new[name] = text
            elif not same_value(held[name], text) and f"effective.{name}" not in held:
                new[f"effective.{name}"] = text
        entries = [Param(name, value) for name, value in new.items()]
        for start in range(0, len(entries), 100):  # MLflow takes 100 in one call
            self._client.log_batch(self.id, params=entries[start : start + 100])

    def config(self, settings: Mapping[str, Any]) -> None:
        """Save the settings as config.yaml, which the step takes with --config."""
        import yaml

        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
        self.artifacts(path)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        now = int(time.time() * 1000)
        rows = [Metric(name, float(value), now, step or 0) for name, value in values.items()]
        for start in range(0, len(rows), BATCH):
            self._client.log_batch(self.id, metrics=rows[start : start + BATCH])
        if self._listener:
            self._listener(values, step)

    def tags(self, values: Mapping[str, str]) -> None:
        self._client.log_batch(self.id, tags=[RunTag(key, str(values[key])) for key in values])

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        if image.dtype != np.uint8:
            raise TypeError(f"image {key} is {image.dtype}, not uint8")
        self._client.log_image(self.id, image, key=key, step=step)

    def figure(self, name: str, figure: Any) -> None:
        self._client.log_figure(self.id, figure, f"figures/{name}.png")

    def table(self, name: str, frame: Any) -> None:
        self._client.log_text(self.id, frame.to_csv(index=False), f"tables/{name}.csv")

    def artifacts(self, path: Path, folder: str = "") -> None:
        if path.is_dir():
            self._client.log_artifacts(self.id, str(path), folder or None)
        else:
            self._client.log_artifact(self.id, str(path), folder or None)

    def model(self, folder: Path) -> None:
        """Upload a saved model with an MLmodel file beside it, so that MLflow can load it."""
        about = json.loads((folder / "model.json").read_text())
        with tempfile.TemporaryDirectory() as scratch:
            packed = Path(scratch) / "model"
            shutil.copytree(folder, packed)
            _write_mlmodel(packed, about, self.id)
            self._client.log_artifacts(self.id, str(packed), "model")

    def input(self, name: str, digest: str, rows: int, context: str) -> None:
        source = json.dumps({"digest": digest})
        profile = json.dumps({"num_rows": rows})
        # MLflow keeps one context for a name and digest, and the same dataset may serve in several
        entry = InputDataset(f"{name} {context}", digest[:36], "mammo", source, profile=profile)
        tag = InputTag("mlflow.data.context", context)
        self._client.log_inputs(self.id, [DatasetInput(entry, [tag])])

    def uri(self, path: str) -> str:
        return f"runs:/{self.id}/{path}"

    @contextmanager
    def child(
        self, name: str, step: str, settings: Mapping[str, Any] | None = None
    ) -> Iterator[Run]:
        folder = self.folder / "children" / name.replace("/", "-").replace(" ", "_")
        run_id = unfinished_run(self.tracking, folder, any_status=True)
        if run_id:
            self.tracking.reopen(run_id)
        else:
            run_id = self.tracking.create_run(name, step, self.id)
        run = TrackedRun(
            self.tracking,
            run_id,
            folder=folder,
            work=self.work,
            inputs=self.inputs,
            launcher=self._launcher,
            listener=self._listener,
        )
        if settings:
            run.params(settings)
            run.config(settings)
        with closing(self.tracking, run_id):
            yield run

    def launch(
        self,
        step: str,
        settings: Mapping[str, Any],
        *,
        name: str = "",
        listener: Listener | None = None,
    ) -> Result:
        """Run another step as a child of this run; only `main` and `tune` do."""
        result: Result = self._launcher(self, step, settings, name, listener)
        return result

    def fetch(self, uri: str) -> Path:
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        place = self.folder / "fetched" / run_id / path
        if not place.exists():
            self.tracking.download(run_id, path, place)
        return place

    def measured(self, run_id: str) -> dict[str, float]:
        return self.tracking.measured(run_id)

    def register(self, run_id: str, name: str, alias: str, tags: Mapping[str, str]) -> str:
        return self.tracking.register(run_id, name, alias, tags)

    def ui(self) -> str:
        address = self.tracking.address
        if address.startswith("http"):
            return f"{address}/#/experiments/{self.tracking.experiment_id}/runs/{self.id}"
        return f"mlflow ui --backend-store-uri {address}"


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


@contextmanager
def closing(tracking: Tracking, run_id: str) -> Iterator[None]:
    """Give the run its true status, however the block ends."""
    try:
        yield
    except BaseException as error:
        close_failed(tracking, run_id, error)
        raise
    tracking.set_status(run_id, "FINISHED")


def close_failed(tracking: Tracking, run_id: str, error: BaseException) -> None:
    """Give a run that `error` ended its status and its reason."""
    match error:
        case Pruned():
            tracking.set_status(run_id, "KILLED", pruned=str(error) or "pruned")
        case Stopped():
            tracking.set_status(run_id, "KILLED", stopped=str(error))
        case MammoError():
            tracking.set_status(run_id, "FAILED", error=str(error))
        case _:
            tracking.set_status(run_id, "FAILED", error=_place(error))


def _place(error: BaseException) -> str:
    """Kind and place of a bug; its message may quote a file's name, and stays on the terminal."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if f"{os.sep}mammo{os.sep}" in each.filename]
    last = (ours or frames)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    return f"{type(error).__name__} in {where}; the traceback is on the terminal"


def unfinished_run(tracking: Tracking, folder: Path, *, any_status: bool = False) -> str:
    """Id of the run whose state lies in `folder`, empty when there is none to continue."""
    try:
        saved = json.loads((folder / "run.json").read_text())
    except (FileNotFoundError, ValueError):
        return ""
    if saved.get("tracking_uri") != tracking.address:
        return ""
    try:
        run = tracking.client.get_run(saved["run_id"])
    except MlflowException:
        return ""
    if run.info.lifecycle_stage == "deleted":
        return ""
    return "" if run.info.status == "FINISHED" and not any_status else str(saved["run_id"])


def as_text(value: Any) -> str:
    """A setting as it is logged: true and false in small letters, everything else as `str`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def same_value(left: str, right: str) -> bool:
    """Whether two texts name the same value: equal, equal as numbers, or equal but for quotes."""
    left, right = (text.strip("'\"") for text in (left, right))
    if left == right or left.lower() == right.lower() in ("true", "false"):
        return True
    try:
        return float(left) == float(right)
    except ValueError:
        return False


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


def _write_mlmodel(folder: Path, about: Mapping[str, Any], run_id: str) -> None:
    """Describe a saved model to MLflow: loader, signature and an example of what it is asked."""
    from mlflow.models import Model
    from mlflow.models.utils import _save_example

    signature, example = (_scores if about["kind"] == "classifier" else _draws)(about)
    model = Model(artifact_path="model", run_id=run_id, signature=signature)
    with warnings.catch_warnings():  # MLflow's own: on the first import of its pyfunc, of pandas 3
        warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType")
        warnings.filterwarnings("ignore", "Operation with range is deprecated")
        import mlflow.pyfunc

        _save_example(model, example, str(folder))
    mlflow.pyfunc.add_to_model(model, loader_module="mammo.serving", data=".")
    model.save(str(folder / "MLmodel"))


def _scores(about: Mapping[str, Any]) -> tuple["ModelSignature", Any]:
    """What a classifier takes and gives, and an image to ask of: black, for it shows nobody."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    image = TensorSpec(np.dtype(np.float32), (-1, *about["shape"]), "images")
    scores = TensorSpec(np.dtype(np.float32), (-1, len(about["classes"]["names"])), "scores")
    # of a model that looks at several images at once: which of them belong together
    sets = ParamSchema([ParamSpec("sets", "long", [], shape=(-1,))])
    signature = ModelSignature(
        inputs=Schema([image]),
        outputs=Schema([scores]),
        params=sets if about.get("views", "none") != "none" else None,
    )
    return signature, {"images": np.zeros((1, *about["shape"]), np.float32)}


def _draws(about: Mapping[str, Any]) -> tuple["ModelSignature", Any]:
    """What a generator takes and gives, and a wish; only one that diffuses has settings."""
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import Array

    asks = about.get("asks", {"conditions": [], "mask": False, "makes": about["shape"]})
    wish = [ColSpec("string", "label"), ColSpec("long", "seed")]
    wish += [ColSpec("string", name, required=False) for name in asks["conditions"]]
    example: dict[str, Any] = {"label": [about["classes"]["names"][0]], "seed": [0]}
    if asks["mask"]:  # rows of pixels, 0 outside
        wish.append(ColSpec(Array(Array(DataType.long)), "mask"))
        mask = np.zeros(about["shape"][1:], int)
        mask[len(mask) // 4 : len(mask) // 2, len(mask[0]) // 4 : len(mask[0]) // 2] = 1
        example["mask"] = [mask.tolist()]
    made = TensorSpec(np.dtype(np.float32), (-1, *asks["makes"]), "images")
    defaults = {name: DRAWING[name] for name in DRAWING if asks.get("samplers")}
    kinds = {float: "double", int: "long", str: "string"}
    params = [ParamSpec(name, kinds[type(each)], each) for name, each in defaults.items()]
    signature = ModelSignature(
        inputs=Schema(wish),
        outputs=Schema([made]),
        params=ParamSchema(params) if params else None,
    )
    frame = pd.DataFrame(example)
    return signature, (frame, defaults) if defaults else frame
