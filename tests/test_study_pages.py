"""A search in the browser: its run, its trials side by side, and Optuna's dashboard beside it.

With MAMMO_UI_PICTURES=docs/images the pictures of docs/search.md are drawn anew.
"""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import servers
from doors import ROOT, mammo
from mlflow import MlflowClient
from servers import TrackingServer

pytestmark = pytest.mark.doors

TRIALS = 5  # the four baselines, and one that is proposed
STUDY = "phantoms"
MOST_BYTES = 200_000  # of a picture


@dataclass(frozen=True)
class Search:
    """A finished run of `tune` on the server, its study in PostgreSQL too."""

    url: str
    run: Any
    said: str

    def link(self, label: str) -> str:
        """The address that was printed behind `label`."""
        return re.findall(rf"^{label}: +(http\S+)$", self.said, re.MULTILINE)[-1]


@pytest.fixture(scope="module")
def search(mlflow_server: TrackingServer, tmp_path_factory: pytest.TempPathFactory) -> Search:
    folder, server = tmp_path_factory.mktemp("search"), mlflow_server.postgres
    storage = servers.Postgres(server.port, "optuna", servers.OPTUNA_DB_PASSWORD, "optuna").uri
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
        patch.setenv("MAMMO_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "searches")
        given = {"dataset": "phantom", "patients": 48, "image_size": 32, "val_fraction": 0.25}
        data = mammo("preprocess", **given).run_id
        small = {"data": data, "epochs": 2, "channels": "8,16", "attention": 0, "sample_every": 0}
        generator = mammo("train_generator", **small).run_id
        synthetic = mammo("sample", generator=generator, count=80, steps=4).run_id
        done = mammo(
            "tune",
            data=data,
            synthetic=synthetic,
            storage=storage,
            study_name=STUDY,
            n_trials=TRIALS,
            workers=2,
            pruner="none",
            search="random",
            train_classifier__epochs=2,
            train_classifier__batch_size=8,
        )
    run = MlflowClient(tracking_uri=mlflow_server.url).get_run(done.run_id)
    return Search(mlflow_server.url, run, done.err)


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.fixture
def training(page: Any, search: Search) -> Any:
    """A page of MLflow as it is set up for training, its Assistant closed."""
    page.goto(f"{search.url}/#/experiments/{search.run.info.experiment_id}/runs")
    page.get_by_label("Close").first.click()
    page.get_by_text("Model training", exact=True).first.click()
    page.get_by_role("link", name="tune", exact=True).first.wait_for()
    return page


def pictured(page: Any, name: str, folder: Path) -> None:
    path = ROOT / os.environ.get("MAMMO_UI_PICTURES", folder) / f"ui_{name}.png"
    page.mouse.move(0, 0)  # no tooltip
    page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size < MOST_BYTES


def test_the_run_of_a_search_says_what_was_searched_and_what_came_out(
    training: Any, search: Search, tmp_path: Path
) -> None:
    where = f"{search.url}/#/experiments/{search.run.info.experiment_id}"
    training.goto(f"{where}/runs/{search.run.info.run_id}")
    training.get_by_text("Show more").first.click()
    training.get_by_text("the test images were not opened").first.wait_for()
    training.get_by_text(f"{TRIALS} trials complete").first.wait_for()
    for choices in ("ce, bce, focal", "random, weighted, balanced"):
        training.get_by_text(choices).first.wait_for()
    pictured(training, "study", tmp_path)


def test_the_trials_of_a_search_are_compared(training: Any, search: Search, tmp_path: Path) -> None:
    training.goto(search.link("the children side by side"))
    heading = f"Comparing {TRIALS} Runs from 1 Experiment"
    training.get_by_role("heading", name=heading).wait_for()
    for number in range(TRIALS):
        training.get_by_text(f"trial_{number}", exact=True).first.wait_for()
    pictured(training, "study_compare", tmp_path)


def test_optunas_dashboard_shows_the_same_study(
    page: Any, search: Search, mlflow_server: TrackingServer, tmp_path: Path
) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed (`server`)")
    port = str(servers.free_port())
    environment = {**mlflow_server.environment, "DASHBOARD_PORT": port}
    command = [sys.executable, servers.START, "dashboard"]
    with servers.running(command, tmp_path / "log", env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        servers.wait_until(
            lambda: servers._get(f"{url}/api/studies"), process, tmp_path / "log", timeout_s=90
        )
        page.goto(f"{url}/dashboard")
        page.get_by_text(re.compile(rf"^\d+\. {STUDY}$")).first.click()
        page.get_by_text(f"{STUDY} (id=").wait_for()
        page.get_by_text("val/auc").first.wait_for()  # its goal has its name
        dots = "document.querySelectorAll('.js-plotly-plot .scatterlayer .point').length"
        page.wait_for_function(f"{dots} >= {TRIALS}")
        pictured(page, "dashboard", tmp_path)
