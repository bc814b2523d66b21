"""Settings and refusals on their way to the server: the first value counts, memory is bounded."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mammo.tracking import Tracking, ownership
from mammo.tracking.delivery import IDENTITY, identified
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


def test_a_text_that_a_database_cannot_hold_is_sent_without_what_it_cannot(
    store: str, tmp_path: Path
) -> None:
    """PostgreSQL answers a NUL with 500, and all that comes behind would wait for ever."""
    client = MlflowClient()
    words = Words(client, client.create_run("0").info.run_id, Rejections(tmp_path), Counter())
    words.send([Item("tags", "error", "x\0y"), Item("params", "source", "/data/Bj\udcf6rn")])
    data = client.get_run(words.run_id).data
    assert (data.tags["error"], data.params["source"]) == ("x\ufffdy", "/data/Bj?rn")
    assert not words.rejected


def test_runs_of_every_experiment_are_found_however_many_there_are(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was created though no answer came is looked for there: unseen it is made twice."""
    search, client = MlflowClient.search_experiments, MlflowClient()
    monkeypatch.setattr(
        *(MlflowClient, "search_experiments"),
        lambda self, *args, **more: search(self, *args, **{**more, "max_results": 1}),
    )
    tags = {IDENTITY: "a" * 32}
    made = [client.create_run(client.create_experiment(name), tags=tags) for name in "xyz"]
    assert identified(client, "a" * 32) in {each.info.run_id for each in made}
    with Tracking(tmp_path / "home") as tracking:
        assert len(tracking.everywhere(f"tags.`{IDENTITY}` = '{'a' * 32}'")) == 3


@pytest.mark.parametrize(("name", "other"), [("lab", "lab"), ("lab", "pc")])
def test_a_number_of_a_process_says_nothing_in_another_container(
    tmp_path: Path, name: str, other: str
) -> None:
    """With the machine's network a container has its name, and counts its processes by itself."""
    for place, target in (("one", "pid:[1]"), ("two", "pid:[2]")):
        (tmp_path / place).symlink_to(target)
    same = ownership._machine(name, tmp_path / "one")
    assert same == ownership._machine(name, tmp_path / "one")
    assert same != ownership._machine(other, tmp_path / "two")


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
