"""A run of a step in MLflow: what it logs and the children it has."""

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
from numpy.typing import NDArray

from mammo.registrar import Registrar
from mammo.run import Listener, Reference, Result, Run, SilentRun
from mammo.tracking import pictures
from mammo.tracking.context import UNKNOWN, code_state
from mammo.tracking.ending import closing, unfinished_run
from mammo.tracking.mlmodel import write_mlmodel
from mammo.tracking.outbox import now_ms
from mammo.tracking.portions import MOST
from mammo.tracking.registry import Registry
from mammo.tracking.store import Tracking
from mammo.tracking.telling import told
from mammo.tracking.values import as_text, without_passwords

PARAM_LENGTH = 6000  # MLflow cuts longer values


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
        self._launcher = launcher
        self._listener = listener
        tracking.outbox.beat(run_id)
        self.last: dict[str, float] = {}  # value of every metric that this process logged
        folder.mkdir(parents=True, exist_ok=True)
        said = json.dumps({"run_id": run_id, "tracking_uri": tracking.address}) + "\n"
        path = folder / "run.json"
        if not path.exists() or path.read_text() != said:  # other processes may be reading it
            path.write_text(said)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings; one that MLflow already holds with another value as `effective.<name>`."""
        self._log("params", {name: as_text(value)[:PARAM_LENGTH] for name, value in values.items()})

    def config(self, settings: Mapping[str, Any]) -> None:
        """Save the settings as config.yaml, which the step takes with --config."""
        import yaml

        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(without_passwords(settings), sort_keys=False))
        self.artifacts(path)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        numbers = {name: float(value) for name, value in values.items()}
        self.last |= numbers
        self._log("metrics", numbers, time=now_ms(), step=step or 0)
        if self._listener:
            self._listener(values, step)

    def tags(self, values: Mapping[str, str]) -> None:
        self._log("tags", {name: str(value) for name, value in values.items()})

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        name, pixels = pictures.stem(key, step), pictures.raw(image)
        self._keep(pixels, "image.npy", "images", image=name)
        self._log("tags", {MLFLOW_LOGGED_IMAGES: "True"})

    def figure(self, name: str, figure: Any) -> None:
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
        self._keep(drawn.getvalue(), *_split(f"figures/{name}.png"))

    def table(self, name: str, frame: Any) -> None:
        text = frame.to_csv(index=False)
        self._keep(text.encode(), *_split(f"tables/{name}.csv"))

    def artifacts(self, path: Path, folder: str = "") -> None:
        """Log a file, or all files below a folder: as they are now, sent later."""
        if not path.is_dir():
            self._keep(path, path.name, folder)
            return
        for each in sorted(path.rglob("*")):
            if each.is_file():
                below = each.relative_to(path).parent.as_posix()
                parts = [part for part in (folder, below) if part not in ("", ".")]
                self._keep(each, each.name, "/".join(parts))

    def model(self, folder: Path) -> None:
        """Log a saved model with an MLmodel file beside it, so that MLflow can load it."""
        about = json.loads((folder / "model.json").read_text())
        with tempfile.TemporaryDirectory() as scratch:
            write_mlmodel(Path(scratch), about, self.id)
            self.artifacts(folder, "model")
            self.artifacts(Path(scratch), "model")

    def input(self, name: str, digest: str, rows: int, context: str) -> None:
        said = {"kind": "input", "name": name, "digest": digest, "rows": rows, "context": context}
        self.tracking.outbox.append(self.id, said)

    def commit(self) -> str:
        code = code_state()
        known = code.commit.removeprefix(UNKNOWN)
        return f"{known}-dirty" if known and code.dirty == "true" else known

    def uri(self, path: str) -> str:
        return f"runs:/{self.id}/{path}"

    def child(
        self, name: str, step: str, settings: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Run]:
        own: dict[str, Any] = {"launcher": self._launcher, "listener": self._listener}
        return _child(self.tracking, self, name, step, settings or {}, **own)

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

    def registrar(self) -> Registrar:
        return Registry(self.tracking, self.work)

    def ui(self) -> str:
        address = self.tracking.address
        if address.startswith("http"):
            return f"{address}/#/experiments/{self.tracking.experiment_id}/runs/{self.id}"
        return f"mlflow ui --backend-store-uri {address}"

    def _log(self, kind: str, values: Mapping[str, Any], **more: int) -> None:
        """Log numbers or words, as many in an entry as MLflow takes in one call."""
        names = list(values)
        for start in range(0, len(names), MOST[kind]):
            part = {name: values[name] for name in names[start : start + MOST[kind]]}
            self.tracking.outbox.append(self.id, {"kind": kind, "values": part, **more})

    def _keep(self, source: Path | bytes, name: str, folder: str, **more: str) -> None:
        self.tracking.outbox.keep(self.id, source, name, folder, **more)


class Share(SilentRun):
    """A run as a process that does a part of it sees it: of its own are only the children.

    The server is asked for them alone.
    """

    def __init__(
        self,
        id: str,
        folder: Path,
        work: Path,
        inputs: Mapping[str, list[Reference]],
        *,
        offline: bool,
    ) -> None:
        super().__init__(id, folder, work, inputs)
        self._offline = offline

    @contextmanager
    def child(
        self, name: str, step: str, settings: Mapping[str, Any] | None = None
    ) -> Iterator[Run]:
        with Tracking(self.work, offline=self._offline) as tracking:
            with _child(tracking, self, name, step, settings or {}) as run:
                yield run
            tracking.settle()


class Branch(SilentRun):
    """A run as a process sees it that only adds children to it, those of other steps too."""

    def __init__(
        self, tracking: Tracking, id: str, folder: Path, work: Path, *, launcher: Any
    ) -> None:
        super().__init__(id, folder, work, {})
        self.tracking = tracking
        self._launcher = launcher

    def child(
        self, name: str, step: str, settings: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Run]:
        return _child(self.tracking, self, name, step, settings or {}, launcher=self._launcher)

    def launch(
        self,
        step: str,
        settings: Mapping[str, Any],
        *,
        name: str = "",
        listener: Listener | None = None,
    ) -> Result:
        result: Result = self._launcher(self, step, settings, name, listener)
        return result


@contextmanager
def _child(
    tracking: Tracking, parent: Run, name: str, step: str, settings: Mapping[str, Any], **own: Any
) -> Iterator[Run]:
    """Open a child of `parent`, the unfinished one of that name where there is one, and end it."""
    folder = parent.folder / "children" / name.replace("/", "-").replace(" ", "_")
    run_id = unfinished_run(tracking, folder, any_status=True)
    if run_id:
        tracking.reopen(run_id)
    else:
        run_id = tracking.create_run(name, step, parent.id)
    about: dict[str, Any] = {"folder": folder, "work": parent.work, "inputs": parent.inputs}
    run = TrackedRun(tracking, run_id, **about, **own)
    if settings:
        run.params(settings)
        run.config(settings)
    with closing(tracking, run_id), told(parent, run, name, step, settings):
        yield run


def _split(path: str) -> tuple[str, str]:
    """Name and folder of an artifact's path."""
    folder, _, name = path.rpartition("/")
    return name, folder
