"""Settings and refusals on their way to the server: the first value counts, memory is bounded."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mammo.tracking.portions import Item
from mammo.tracking.rejections import Rejections
from mammo.tracking.words import Words

pytestmark = pytest.mark.doors


@pytest.mark.parametrize("together", [True, False])
def test_the_first_of_two_values_is_the_setting_however_fast_they_came(
    store: str, tmp_path: Path, together: bool
) -> None:
    client = MlflowClient()
    words = Words(client, client.create_run("0").info.run_id, Rejections(tmp_path), Counter())
    items = [Item("params", "lr", value) for value in ("0.1", "1e-1", "0.05")]
    for batch in [items] if together else [[each] for each in items]:
        words.send(batch)
    held = client.get_run(words.run_id).data.params
    assert held == {"lr": "0.1", "effective.lr": "0.05"}


def test_what_is_refused_is_counted_and_kept_on_the_disk_alone(tmp_path: Path) -> None:
    """Of a run that somebody deletes every number is refused, for days."""
    rejected = Rejections(tmp_path)
    assert not rejected
    for step in range(100):
        entry: Any = {"kind": "metrics", "values": {"loss": 1.0}, "step": step}
        rejected.add(entry, "it is deleted")
    assert len(rejected) == 100
    assert rejected.line("r") == (
        "the tracking server refused metrics loss (it is deleted) and 99 more of run r; it is kept "
        f"in {tmp_path / 'rejected.jsonl'}"
    )
    assert len(rejected.path.read_text().splitlines()) == 100
