"""What the entries of a journal say of their run, for as long as no server can be asked."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunData, RunInfo, RunTag
from mlflow.entities import Run as MlflowRun

from mammo.tracking.journal import Entry, decoded
from mammo.tracking.kept import artifact_path


@dataclass
class View:
    """A run as its journal knows it."""

    run_id: str
    about: Mapping[str, Any]
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)  # the last value of each
    history: list[Metric] = field(default_factory=list)  # of the one metric asked for
    status: str = "RUNNING"
    ended: int = 0
    files: dict[str, str] = field(default_factory=dict)  # artifact path: path below files/

    def run(self) -> MlflowRun:
        """The run as MLflow would give it."""
        about = self.about
        info = RunInfo(
            run_id=self.run_id,
            experiment_id=str(about.get("experiment_id", "")),
            user_id="",
            status=self.status,
            start_time=int(about.get("time", 0)),
            end_time=self.ended,
            lifecycle_stage="active",
            artifact_uri="",
            run_name=str(about.get("name", "")),
        )
        return MlflowRun(
            info,
            RunData(
                list(self.metrics.values()),
                [Param(*each) for each in self.params.items()],
                [RunTag(*each) for each in self.tags.items()],
            ),
        )

    def holds(self, path: str) -> bool:
        """Whether the artifact `path`, a file or a folder, was logged."""
        return any(each == path or each.startswith(f"{path}/") for each in self.files)


def seen(entries: Iterable[Entry], run_id: str, metric: str = "") -> View:
    """The run that `entries` tell of, with all values of `metric`."""
    view = View(run_id, {})
    for entry in entries:
        kind, values = entry["kind"], entry.get("values", {})
        if kind == "about":
            view.about = entry
            view.tags |= entry.get("tags", {})
        elif kind == "metrics":
            for name, value in values.items():
                each = Metric(name, value, entry["time"], entry["step"])
                view.metrics[name] = each
                view.history += [each] if name == metric else []
        elif kind == "params":
            view.params = {**values, **view.params}
        elif kind == "tags":
            view.tags |= values
        elif kind == "file":
            view.files[artifact_path(entry)] = entry["file"]
        elif kind == "reopen":
            view.status, view.ended = "RUNNING", 0
        elif kind == "end":
            view.status, view.ended = entry["status"], entry["time"]
            view.tags |= entry["tags"]
    return view


def entries_in(folder: Path) -> Iterator[Entry]:
    """Whole entries of the journal in `folder`, which another process may be writing."""
    try:
        file = (folder / "journal.jsonl").open("rb")
    except OSError:
        return
    with file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoded(line)
