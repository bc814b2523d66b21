"""The tracking server under the load of a lab: fifty clients at once, and five thousand runs.

Figures are printed, and stand in docs/results.md; what is asserted holds on any machine.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers

pytestmark = pytest.mark.slow
CLIENTS, SECONDS = 50, 120
RUNS, METRICS = 5000, 50


@pytest.fixture(scope="module")
def load() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(servers.ROOT / "benchmarks"))
        yield import_module("server_load")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, postgres: Any, minio: Any
) -> Iterator[servers.TrackingServer]:
    """With the workers that the compose file gives it, on PostgreSQL and MinIO."""
    folder = tmp_path_factory.mktemp("load")
    with (
        servers.running_mlflow(folder, postgres, minio, MLFLOW_WORKERS="2") as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("MLFLOW_TRACKING_URI", running.url)
        yield running


def test_every_value_of_fifty_clients_is_there_once(
    load: Any, server: servers.TrackingServer, tmp_path: Path, capsys: Any
) -> None:
    found = load.loaded("mammo", server, tmp_path, clients=CLIENTS, seconds=SECONDS)
    with capsys.disabled():
        print(f"\n| {' | '.join(load.COLUMNS)} |\n{load.line('mammo', found)}")
    assert found.errors == []
    assert found.planned == CLIENTS * SECONDS * 10
    # a client that was late by more than one value's time leaves its last ones out
    assert 0.99 * found.planned <= len(found.calls_ms) <= found.planned
    assert found.rows == len(found.calls_ms)
    assert found.wrong == 0


@pytest.fixture(scope="module")
def made(load: Any, server: servers.TrackingServer) -> Any:
    return load.make_runs(server, runs=RUNS, metrics=METRICS)


def test_five_thousand_runs_are_listed_and_filtered(
    load: Any, server: servers.TrackingServer, made: Any, capsys: Any
) -> None:
    answers = {name: load.listed(server, made, name) for name in load.QUESTIONS}
    with capsys.disabled():
        print(f"\n{RUNS} runs of {METRICS} metrics made in {made.seconds:.0f} s")
        for name, (seconds, found) in answers.items():
            print(f"{name}: {seconds:.2f} s ({len(found)} runs)")
    first, best, chosen, every = (found for _, found in answers.values())
    assert len({run.info.run_id for run in first}) == 100
    np.testing.assert_allclose(
        [run.data.metrics["m0"] for run in best], np.sort(made.values[:, 0])[::-1][:100]
    )
    assert len(chosen) == 100 < (made.odd & (made.values[:, 1] > 0.5)).sum()
    assert all(run.data.metrics["m1"] > 0.5 and run.data.params["parity"] == "1" for run in chosen)
    assert {run.info.run_name for run in every} == {f"run {number}" for number in range(RUNS)}
    assert {len(run.data.metrics) for run in every} == {METRICS}
