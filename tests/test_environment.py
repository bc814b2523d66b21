"""`mlflow run` builds the environment of an entry point from conda.yaml, with uv."""

from pathlib import Path

import pytest
from doors import mlflow_run

pytestmark = pytest.mark.doors


def test_an_entry_point_runs_in_an_environment_that_uv_made(store: str, tmp_path: Path) -> None:
    outcome = mlflow_run("preprocess", manager="uv", dataset="phantom", patients=15, image_size=32)
    assert outcome.line["metrics"]["images"] == 24  # two views of each breast with a lesion
