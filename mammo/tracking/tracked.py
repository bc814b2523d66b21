"""A run of a step in MLflow: what it logs and the children it has."""

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Dataset as InputDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from mammo.run import Listener, Reference, Result, Run
from mammo.tracking.ending import closing, unfinished_run
from mammo.tracking.mlmodel import write_mlmodel
from mammo.tracking.store import Tracking

PARAM_LENGTH = 6000  # MLflow cuts longer values
# MLflow looks for a dataset and then inserts it; of two processes at once, the second fails
_AT_ONCE = re.compile("UNIQUE constraint failed: datasets|duplicate key value violates unique")
BATCH = 1000  # metrics in one call, MLflow's limit


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
        said = json.dumps({"run_id": run_id, "tracking_uri": tracking.address}) + "\n"
        path = folder / "run.json"
        if not path.exists() or path.read_text() != said:  # other processes may be reading it
            path.write_text(said)

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
            write_mlmodel(packed, about, self.id)
            self._client.log_artifacts(self.id, str(packed), "model")

    def input(self, name: str, digest: str, rows: int, context: str) -> None:
        source = json.dumps({"digest": digest})
        profile = json.dumps({"num_rows": rows})
        # MLflow keeps one context for a name and digest, and the same dataset may serve in several
        entry = InputDataset(f"{name} {context}", digest[:36], "mammo", source, profile=profile)
        tag = InputTag("mlflow.data.context", context)
        inputs = [DatasetInput(entry, [tag])]
        try:
            self._client.log_inputs(self.id, inputs)
        except MlflowException as error:
            if not _AT_ONCE.search(str(error)):
                raise
            self._client.log_inputs(self.id, inputs)  # now the dataset is there

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
