"""What a training step pays for its logging: next to nothing, far less than with Lightning's."""

import statistics
from pathlib import Path
from typing import Any

import doors
import pytest
import servers

pytestmark = pytest.mark.doors


def test_a_step_pays_a_hundredth_at_most_and_a_tenth_of_lightnings_logger(
    mlflow_server: servers.TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    monkeypatch.syspath_prepend(doors.ROOT / "benchmarks")
    import tracking as benchmark

    monkeypatch.setattr(benchmark, "STEPS", 40)
    monkeypatch.setattr(benchmark, "TURN", 20)
    ours, _, theirs = benchmark.measure(mlflow_server.url, tmp_path)
    ours_s, theirs_s = statistics.median(ours), statistics.median(theirs)
    assert ours_s <= 0.01 * benchmark.STEP_S
    assert theirs_s >= 10 * ours_s
    assert rows(mlflow_server, "train/loss_0") == 2 * 45  # both logged all of it


def rows(server: servers.TrackingServer, metric: str) -> Any:
    """How many rows the database holds of a metric."""
    query = "SELECT count(*) FROM metrics WHERE key = %s"
    return server.postgres.query(query, metric)[0][0]
