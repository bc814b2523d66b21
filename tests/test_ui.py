"""What a user sees: a training run in MLflow's own pages, on PostgreSQL and MinIO, in Chromium."""

import re
from pathlib import Path
from typing import Any

import pytest
from doors import mammo
from servers import TrackingServer

pytestmark = pytest.mark.doors

FAST = {"model_name": "resnet10t", "epochs": 3, "batch_size": 8}


@pytest.fixture(scope="module")
def trained(mlflow_server: TrackingServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of a finished run of train_classifier on the server."""
    folder = tmp_path_factory.mktemp("ui")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
        patch.setenv("MAMMO_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "seen")
        data = mammo("preprocess", dataset="phantom", patients=24, image_size=32, val_fraction=0.25)
        return mammo("train_classifier", data=data.uri, run_name="seen in the UI", **FAST).run_id


def test_params_metrics_and_artifacts_lie_in_postgresql_and_minio(
    trained: str, mlflow_server: TrackingServer, monkeypatch: Any
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_server.url)
    run = client.get_run(trained)
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    artifacts = {item.path for item in client.list_artifacts(trained)}
    assert {"model", "config.yaml", "preview.png", "figures"} <= artifacts


def test_a_training_run_shows_params_curves_figures_and_inputs(
    trained: str, mlflow_server: TrackingServer, chromium: Any, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_server.url)
    experiment = client.get_run(trained).info.experiment_id
    page = chromium.new_page(viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(30_000)
    place = f"{mlflow_server.url}/#/experiments/{experiment}/runs/{trained}"

    page.goto(place)
    for shown in ("seen in the UI", "Finished", "model_name", "resnet10t", "best/val/auc"):
        page.get_by_text(shown).first.wait_for()
    page.get_by_text("phantom training (").first.wait_for()  # the dataset input, with its digest
    page.get_by_text(re.compile("^training$", re.IGNORECASE)).first.wait_for()

    page.goto(f"{place}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("^val/auc$")
    page.wait_for_selector(".js-plotly-plot .scatterlayer path.js-line", state="attached")

    page.goto(f"{place}/artifacts")
    page.get_by_text("figures", exact=True).first.click()
    page.get_by_text(".png").first.click()
    picture = page.locator("img[src^='blob:'], img[src*='get-artifact']").first
    picture.wait_for()
    page.wait_for_function("image => image.naturalWidth > 100", arg=picture.element_handle())
