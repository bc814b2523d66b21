"""What a step sees of its tracked run: numbers, pictures and files go in, nothing comes back."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mammo.registrar import Registrar


@dataclass(frozen=True)
class Reference:
    """A dataset or model that a setting named, found and lying on disk."""

    uri: str  # runs:/<id>/<path>, models:/... or the local path
    path: Path  # its folder
    digest: str
    run_id: str = ""  # the run that made it, empty for a local path


@dataclass
class Result:
    """What a step hands on: artifacts by name (their URIs) and headline metrics."""

    outputs: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    digest: str = ""  # of the main output
    note: str = ""  # markdown for the run's page, above what every run says


Listener = Callable[[Mapping[str, float], "int | None"], None]


class Pruned(Exception):
    """A listener ends the run early: it has learned enough (an unpromising trial)."""


class FailedElsewhere(RuntimeError):
    """Another process has met a bug; its log has the traceback."""


class Stopped(BaseException):
    """A signal asked the process to stop; state is saved and the run ends KILLED."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"signal {signal}")
        self.signal = signal


class Run(Protocol):
    """One tracked run. `folder` keeps the step's state until the run is finished."""

    id: str
    folder: Path
    work: Path  # the work folder: datasets/, models/, private/
    inputs: Mapping[str, list[Reference]]  # by setting; a setting left empty has no entry

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def tags(self, values: Mapping[str, str]) -> None: ...

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        """Log `image` (H, W) or (H, W, 3) uint8 under `key` at `step`."""

    def figure(self, name: str, figure: Any) -> None:
        """Save a matplotlib figure as figures/<name>.png."""

    def table(self, name: str, frame: Any) -> None:
        """Save a pandas frame as tables/<name>.csv."""

    def artifacts(self, path: Path, folder: str = "") -> None:
        """Upload a file into `folder`, or the contents of a folder as `folder`."""

    def model(self, folder: Path) -> None:
        """Upload a saved model (mammo.models) as the artifact model/, loadable by MLflow."""

    def input(self, name: str, digest: str, rows: int, context: str) -> None:
        """Declare a dataset input; context is training, validation, test or synthetic."""

    def commit(self) -> str:
        """Commit of the code that runs, with `-dirty` where it was changed; empty if unknown."""

    def uri(self, path: str) -> str:
        """Address of the artifact `path` of this run."""

    def child(
        self, name: str, step: str, settings: Mapping[str, Any] | None = None
    ) -> AbstractContextManager["Run"]:
        """Open a child run; it ends FINISHED, or FAILED when the block raises.

        An unfinished child of the same name is continued, a finished one keeps its id.
        """

    def launch(
        self,
        step: str,
        settings: Mapping[str, Any],
        *,
        name: str = "",
        listener: Listener | None = None,
    ) -> Result:
        """Run another step as a child run; `listener` sees its metrics and may raise Pruned."""

    def fetch(self, uri: str) -> Path:
        """Local path of the artifact `runs:/<id>/<path>`."""

    def registrar(self) -> Registrar:
        """What a promotion reads of other runs, and the registry that it writes into."""

    def ui(self) -> str:
        """The command or address that shows the runs."""


class SilentRun:
    """The run of another process, as one that only helps it sees it: it logs nothing itself."""

    def __init__(
        self, id: str, folder: Path, work: Path, inputs: Mapping[str, list[Reference]]
    ) -> None:
        self.id, self.folder, self.work, self.inputs = id, folder, work, inputs

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def tags(self, values: Mapping[str, str]) -> None: ...

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None: ...

    def figure(self, name: str, figure: Any) -> None: ...

    def table(self, name: str, frame: Any) -> None: ...

    def artifacts(self, path: Path, folder: str = "") -> None: ...

    def model(self, folder: Path) -> None: ...

    def input(self, name: str, digest: str, rows: int, context: str) -> None: ...

    def commit(self) -> str:
        return ""

    def uri(self, path: str) -> str:
        return f"runs:/{self.id}/{path}"

    def child(
        self, name: str, step: str, settings: Mapping[str, Any] | None = None
    ) -> AbstractContextManager["Run"]:
        raise self._not_here("a child run")

    def launch(
        self,
        step: str,
        settings: Mapping[str, Any],
        *,
        name: str = "",
        listener: Listener | None = None,
    ) -> Result:
        raise self._not_here(f"step {step}")

    def fetch(self, uri: str) -> Path:
        raise self._not_here(f"fetching {uri}")

    def registrar(self) -> Registrar:
        raise self._not_here("the registry")

    def ui(self) -> str:
        raise self._not_here("the address of the runs")

    def _not_here(self, what: str) -> AssertionError:
        return AssertionError(f"{what} belongs to the process that tracks the run")


class MemoryRun:
    """A run kept in memory, for tests: everything logged stays readable as attributes."""

    def __init__(self, folder: Path, inputs: Mapping[str, list[Reference]] | None = None) -> None:
        self.id = f"memory-{folder.name}"
        self.folder = folder / "run"
        self.work = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.inputs = inputs or {}
        self.logged_params: dict[str, Any] = {}
        self.history: list[tuple[str, float, int | None]] = []
        self.logged_tags: dict[str, str] = {}
        self.images: dict[tuple[str, int], NDArray[np.uint8]] = {}
        self.figures: list[str] = []
        self.tables: dict[str, Any] = {}
        self.uploaded: dict[str, Path] = {}
        self.input_datasets: list[tuple[str, str, int, str]] = []
        self.children: dict[str, MemoryRun] = {}
        self.status = "RUNNING"
        self.launched: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, Path] = {}
        self.answers: dict[str, Any] = {}  # by step: a Result, or a function that makes one

    @property
    def last(self) -> dict[str, float]:
        """Last value of every metric."""
        return {name: value for name, value, _ in self.history}

    def params(self, values: Mapping[str, Any]) -> None:
        self.logged_params.update(values)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.history += [(name, float(value), step) for name, value in values.items()]

    def tags(self, values: Mapping[str, str]) -> None:
        self.logged_tags.update(values)

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        if image.dtype != np.uint8:
            raise TypeError(f"image {key} is {image.dtype}, not uint8")
        self.images[key, step] = image

    def figure(self, name: str, figure: Any) -> None:
        self.figures.append(name)
        figure.savefig(self.folder / f"{Path(name).name}.png")

    def table(self, name: str, frame: Any) -> None:
        self.tables[name] = frame

    def artifacts(self, path: Path, folder: str = "") -> None:
        if not path.exists():
            raise FileNotFoundError(path)
        self.uploaded[folder or path.name] = path

    def model(self, folder: Path) -> None:
        self.artifacts(folder, "model")

    def input(self, name: str, digest: str, rows: int, context: str) -> None:
        self.input_datasets.append((name, digest, rows, context))

    def commit(self) -> str:
        return self.logged_tags.get("mammo.git_commit", "")

    def uri(self, path: str) -> str:
        return f"runs:/{self.id}/{path}"

    def child(
        self, name: str, step: str, settings: Mapping[str, Any] | None = None
    ) -> AbstractContextManager["Run"]:
        return _MemoryChild(self, name, dict(settings or {}))

    def launch(
        self,
        step: str,
        settings: Mapping[str, Any],
        *,
        name: str = "",
        listener: Listener | None = None,
    ) -> Result:
        self.launched.append((step, dict(settings)))
        answer = self.answers[step]
        result: Result = answer(settings, listener) if callable(answer) else answer
        return result

    def fetch(self, uri: str) -> Path:
        return self.files[uri]

    def registrar(self) -> Registrar:
        raise AssertionError("a run in memory has no registry")

    def ui(self) -> str:
        return "nowhere: this run is kept in memory"


class _MemoryChild(AbstractContextManager["Run"]):
    def __init__(self, parent: MemoryRun, name: str, settings: dict[str, Any]) -> None:
        self._run = MemoryRun(parent.folder / name, parent.inputs)
        self._run.work = parent.work
        self._run.params(settings)
        parent.children[name] = self._run

    def __enter__(self) -> Run:
        return self._run

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._run.status = "FINISHED" if kind is None else "FAILED"
