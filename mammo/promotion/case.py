"""A model that is to be promoted, with all that its gates look at; each thing is fetched once."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd

from mammo.data.dataset import Dataset
from mammo.errors import DataError, TrackingError
from mammo.lineage import Graph
from mammo.models import SavedModel, open_model
from mammo.registrar import Evaluation, Registrar, Version
from mammo.run import Reference

SPLIT = "test"  # the rows that judge


class Case:
    """What is known of the model `reference`, which wants the alias `alias` of `name`.

    `data` is the dataset that judges it; without, the one of its evaluations, where they have one.
    `scratch` is a folder for what is fetched.
    """

    def __init__(
        self,
        registrar: Registrar,
        reference: Reference,
        *,
        kind: str,
        name: str,
        alias: str,
        data: Reference | None,
        scratch: Path,
    ) -> None:
        self.registrar, self.reference, self.kind = registrar, reference, kind
        self.name, self.alias = name, alias
        self._data, self._scratch = data, scratch
        self.run_id = reference.run_id
        # a run may hold models beside its main one
        inside = f"runs:/{self.run_id}/"
        same = reference.uri.startswith(inside)
        self.path = reference.uri.removeprefix(inside) if same else "model"

    @property
    def uri(self) -> str:
        return f"runs:/{self.run_id}/{self.path}"

    @property
    def graph(self) -> Graph:
        return self.registrar.graph

    @cached_property
    def stored(self) -> Path:
        """A fresh copy of the model as the store has it: that is what will be loaded."""
        return self.registrar.copied(self.run_id, self.path, self._scratch)

    @cached_property
    def saved(self) -> SavedModel:
        """The stored model, every hash checked."""
        return open_model(self.stored, self.kind)

    @cached_property
    def behind(self) -> list[str]:
        """The model's run and all runs that it was made from; what no run here made is left out."""
        found = self.graph.ancestors(self.run_id) & self.graph.nodes.keys()
        return [self.run_id, *sorted(found - {self.run_id})]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """Those of this very model, newest first."""
        return [
            each
            for each in self.registrar.evaluations(self.run_id)
            if each.model_digest in ("", self.reference.digest)
        ]

    @cached_property
    def data(self) -> Dataset:
        """The dataset that judges; DataError where it is not plain which one."""
        if self._data is not None:
            return Dataset(self._data.path)
        judged = [each for each in self.evaluations if self._counts(each)]
        digests = list(dict.fromkeys(each.data_digest for each in judged))
        if len(digests) == 1:
            return Dataset(self.registrar.dataset(digests[0]))
        if digests:
            raise DataError(
                f"it was evaluated on {len(digests)} datasets ({', '.join(digests)}); name the one "
                "that judges with --data"
            )
        raise DataError(f"it was never evaluated; {self.remedy(self.uri, 'DATASET')}")

    @cached_property
    def evaluation(self) -> Evaluation:
        """The newest evaluation on the test rows of the dataset that judges."""
        for each in self.evaluations:
            if self._counts(each) and each.data_digest == self.data.digest:
                return each
        raise DataError(
            f"it was never evaluated on {'the test rows of ' * (self.kind == 'classifier')}dataset "
            f"{self.data.name} ({self.data.digest}); {self.remedy(self.uri)}"
        )

    @property
    def _place(self) -> str:
        """What names the dataset on the command line."""
        maker = self.graph.maker(self.data.digest)
        return f"runs:/{maker}/dataset" if maker else str(self.data.folder)

    def _counts(self, each: Evaluation) -> bool:
        if self.kind == "classifier":
            return each.split == SPLIT and "model" in each.inputs
        return "synthetic" in each.inputs

    def remedy(self, model: str, data: str = "") -> str:
        """The command that evaluates a model on the dataset that judges."""
        data = data or self._place
        if self.kind == "classifier":
            return f"run: mammo evaluate --model {model} --data {data}"
        return (
            f"run: mammo sample --generator {model} --count 200, then mammo evaluate "
            f"--synthetic RUN --data {data}"
        )

    def table(self, run_id: str, name: str) -> pd.DataFrame:
        """The table that a run keeps as `name`.parquet; DataError where it has none."""
        try:
            return pd.read_parquet(self.registrar.copied(run_id, f"{name}.parquet", self._scratch))
        except TrackingError:
            raise DataError(
                f"run {run_id} has no {name}.parquet; evaluate again with this mammo"
            ) from None

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """What the evaluation recorded of each test image."""
        frame = self.table(self.evaluation.run_id, "predictions")
        return frame[frame["split"] == SPLIT].reset_index(drop=True)

    @cached_property
    def champion(self) -> Version | None:
        """The version that holds the alias."""
        return self.registrar.holder(self.name, self.alias)

    def part(self, run_id: str, name: str) -> Path | None:
        """A file of the model of another run; None where it has none."""
        if not self.registrar.has(run_id, f"model/{name}"):
            return None
        return self.registrar.copied(run_id, f"model/{name}", self._scratch)

    def named(self, run_id: str) -> str:
        """A run in words: its step and the start of its id."""
        node = self.graph.nodes.get(run_id)
        return f"{node.step} {run_id[:8]}" if node else run_id[:8]

    def marks(self, run_id: str) -> Mapping[str, str]:
        node = self.graph.nodes.get(run_id)
        return node.marks if node else {}
