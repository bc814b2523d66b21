"""What a promotion reads of other runs, and the registry of models that it writes into."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mammo.lineage import Graph

Scores = Callable[[Any, Mapping[str, Any]], Any]  # of what is asked and its params


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    number: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"


@dataclass(frozen=True)
class Evaluation:
    """A finished run of evaluate: whose, on which real images, and what it found."""

    run_id: str
    data_digest: str
    split: str
    aggregate: str  # as asked; empty for the model's own
    model_digest: str  # empty where the run does not tell
    metrics: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, list[str]] = field(default_factory=dict)  # run ids or digests by setting


class Registrar(Protocol):
    """Other runs of the store, and the registry."""

    @property
    def graph(self) -> Graph:
        """Every run of the store."""

    def evaluations(self, run_id: str) -> list[Evaluation]:
        """Of the model of a run, newest first; of a generator, of the datasets sampled from it."""

    def digest_of(self, run_id: str) -> str:
        """Digest of the main output of a run; empty where it has none."""

    def dataset(self, digest: str) -> Path:
        """Folder of a dataset that a run of the store made or used."""

    def copied(self, run_id: str, path: str, into: Path) -> Path:
        """A fresh copy of the artifact `path` of a run in the folder `into`."""

    def has(self, run_id: str, path: str) -> bool:
        """Whether a run has the artifact `path`."""

    def served(self, uri: str) -> Scores:
        """The model at runs:/<id>/<path> or models:/<name>/<version> as MLflow serves it."""

    def holder(self, name: str, alias: str) -> Version | None:
        """The version that an alias points to."""

    def add(
        self, name: str, run_id: str, path: str, *, tags: Mapping[str, str], note: str
    ) -> Version:
        """Make the model at `path` of a run a new version of `name`, without an alias."""

    def point(self, name: str, alias: str, number: str) -> None:
        """Let an alias point to a version."""

    def unpoint(self, name: str, alias: str) -> None:
        """Take an alias away."""

    def remove(self, version: Version) -> None:
        """Delete a version that has not passed."""
