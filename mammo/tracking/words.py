"""Numbers, settings and tags as requests: what the server refuses is found and kept."""

import json
import re
from collections import Counter

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from mammo.tracking.answers import Away, Refused, asked
from mammo.tracking.journal import Entry
from mammo.tracking.portions import Item, entry_of
from mammo.tracking.rejections import Rejections
from mammo.tracking.values import same_value, storable

# MLflow looks for a dataset and then inserts it; of two processes at once, the second fails
_AT_ONCE = re.compile("UNIQUE constraint failed: datasets|duplicate key value violates unique")


class Words:
    """What is written into the run `run_id` of the server beside its files."""

    def __init__(
        self, client: MlflowClient, run_id: str, rejected: Rejections, sent: Counter[str]
    ) -> None:
        self.client, self.run_id, self.rejected, self.sent = client, run_id, rejected, sent
        self._params: dict[str, str] | None = None  # what the server holds

    def send(self, items: list[Item], *, whole: bool = True) -> None:
        """Send a batch; one that is refused in halves, down to the one that is to blame."""
        try:
            self._log(items)
        except Refused as refused:
            if len(items) == 1 or (whole and self._is_gone()):
                for item in items:
                    self.rejected.add(entry_of(item), str(refused))
                return
            middle = len(items) // 2
            self.send(items[:middle], whole=False)
            self.send(items[middle:], whole=False)

    def input(self, entry: Entry) -> None:
        """Declare a dataset."""
        source, profile = json.dumps({"digest": entry["digest"]}), {"num_rows": entry["rows"]}
        # MLflow keeps one context for a name and digest; the same dataset may serve in several
        dataset = Dataset(
            *(f"{entry['name']} {entry['context']}", entry["digest"][:36], "mammo", source),
            profile=json.dumps(profile),
        )
        tag = InputTag("mlflow.data.context", entry["context"])
        try:
            asked(self.client.log_inputs, self.run_id, [DatasetInput(dataset, [tag])])
        except Refused as refused:
            if not _AT_ONCE.search(str(refused)):
                raise
            raise Away(f"{refused}, by another run at the same moment", reached=True) from refused

    def _log(self, items: list[Item]) -> None:
        metrics = [
            Metric(each.name, each.value, each.time, each.step)
            for each in items
            if each.kind == "metrics"
        ]
        tags = [RunTag(each.name, storable(each.value)) for each in items if each.kind == "tags"]
        params = self._new_params([each for each in items if each.kind == "params"])
        entries = [Param(name, value) for name, value in params.items()]
        if metrics or tags or entries:
            asked(self.client.log_batch, self.run_id, metrics=metrics, params=entries, tags=tags)
        self.sent.update(each.kind for each in items)
        if self._params is not None:
            self._params |= params

    def _new_params(self, items: list[Item]) -> dict[str, str]:
        """What to log: a setting that the server holds with another value is `effective.<name>`."""
        if items and self._params is None:
            self._params = dict(asked(self.client.get_run, self.run_id).data.params)
        held, new = dict(self._params or {}), dict[str, str]()
        for item in items:
            name, value = item.name, storable(item.value)
            if name in held and not same_value(held[name], value):
                name = f"effective.{name}"
            if name not in held:
                held[name] = new[name] = value
        return new

    def _is_gone(self) -> bool:
        """Whether the server takes nothing at all of this run."""
        try:
            found = asked(self.client.get_run, self.run_id)
        except Refused:
            return True
        return bool(found.info.lifecycle_stage == "deleted")
