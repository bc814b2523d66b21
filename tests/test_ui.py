"""What a user sees: phantom runs in MLflow's own pages, on PostgreSQL and MinIO, in Chromium.

With MAMMO_UI_PICTURES=docs/images the pictures of docs/runs.md are drawn anew.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doors import ROOT, mammo
from mlflow import MlflowClient
from servers import TrackingServer

pytestmark = pytest.mark.doors

MOST_BYTES = 200_000  # of a picture
TRIALS = ["trial_0", "trial_1", "trial_2", "trial_3"]
SMALL = {
    "preprocess__patients": 36,
    "preprocess__image_size": 32,
    "preprocess__val_fraction": 0.25,
    "train_generator__epochs": 8,
    "train_generator__sample_every": 4,
    "train_generator__channels": "8,16",
    "train_generator__attention": 0,
    "sample__steps": 4,
    "sample__count": 64,
    "train_classifier__epochs": 3,
    "train_classifier__batch_size": 8,
    "evaluate__bootstrap": 200,
}


@dataclass(frozen=True)
class Pipeline:
    """A finished run of `main` on the server, with its children by name."""

    url: str
    experiment: str
    run_id: str
    children: dict[str, str]
    said: str  # on the terminal
    metrics: dict[str, float]

    def page(self, name: str = "", tab: str = "") -> str:
        """Address of a child's page, or of the parent's."""
        run_id = self.children[name] if name else self.run_id
        return f"{self.url}/#/experiments/{self.experiment}/runs/{run_id}{tab}"

    def link(self, label: str, number: int) -> str:
        """The address that was printed behind `label` for the time `number`."""
        return re.findall(rf"^{label}: +(http\S+)$", self.said, re.MULTILINE)[number]


@pytest.fixture(scope="module")
def pipeline(mlflow_server: TrackingServer, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("ui")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
        patch.setenv("MAMMO_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "phantoms")
        patch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "2")
        done = mammo("main", dataset="phantom", **SMALL)
    return opened(mlflow_server.url, done.run_id, done.err)


def opened(url: str, run_id: str, said: str) -> Pipeline:
    client = MlflowClient(tracking_uri=url)
    run = client.get_run(run_id)
    found = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    children = {each.info.run_name: each.info.run_id for each in found}
    return Pipeline(url, run.info.experiment_id, run_id, children, said, run.data.metrics)


@pytest.fixture
def page(chromium: Any, pipeline: Pipeline) -> Iterator[Any]:
    """A page of MLflow as it is set up for training, its Assistant closed."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    page.goto(f"{pipeline.url}/#/experiments/{pipeline.experiment}/runs")
    page.get_by_label("Close").first.click()
    page.get_by_text("Model training", exact=True).first.click()
    page.get_by_role("link", name="main", exact=True).first.wait_for()
    yield page
    page.close()


@pytest.fixture
def pictured(page: Any, tmp_path: Path) -> Any:
    """Keeps what the page shows as ui_<name>.png, and looks whether it is small enough."""
    folder = ROOT / os.environ.get("MAMMO_UI_PICTURES", tmp_path)

    def picture(name: str) -> None:
        path = folder / f"ui_{name}.png"
        page.mouse.move(0, 0)  # no tooltip
        page.screenshot(path=path, animations="disabled")
        assert path.stat().st_size < MOST_BYTES

    return picture


def rows(page: Any) -> list[str]:
    """Names in the table of runs, as it sorts them."""
    found = page.locator(".ag-row").evaluate_all(
        "rows => rows.map(row => [Number(row.getAttribute('row-index')),"
        " row.querySelector('a')?.innerText])"
    )
    return [name for _, name in sorted(each for each in found if each[1])]


def test_params_metrics_and_artifacts_lie_in_postgresql_and_minio(pipeline: Pipeline) -> None:
    client = MlflowClient(tracking_uri=pipeline.url)
    run = client.get_run(pipeline.children["real_only"])
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"model", "config.yaml", "preview.png", "figures", "environment"} <= artifacts


def test_the_machine_is_sampled_and_the_children_are_counted_on_the_parent(
    pipeline: Pipeline,
) -> None:
    client = MlflowClient(tracking_uri=pipeline.url)
    busy = client.get_metric_history(pipeline.run_id, "system/cpu_utilization_percentage")
    assert [each.step for each in busy] == list(range(len(busy)))
    assert 0 < max(each.value for each in busy) <= 100
    counted = client.get_metric_history(pipeline.run_id, "children/finished")
    assert [(each.step, each.value) for each in counted] == [(n, n) for n in range(1, 10)]


def test_the_list_of_runs_shows_the_pipeline_and_its_steps(
    page: Any, pipeline: Pipeline, pictured: Any
) -> None:
    page.locator(".ag-row").first.get_by_role("button").first.click()  # opens its children
    page.get_by_role("link", name="preprocess", exact=True).first.wait_for()
    shown = rows(page)
    assert shown[0] == "main"
    assert {*pipeline.children} <= set(shown)
    pictured("runs")


def test_a_training_run_shows_params_curves_figures_and_inputs(
    page: Any, pipeline: Pipeline
) -> None:
    page.goto(pipeline.page("real_only"))
    for shown in ("real_only", "Finished", "model_name", "resnet10t", "best/val/auc"):
        page.get_by_text(shown).first.wait_for()
    page.get_by_text("phantom training (").first.wait_for()  # the dataset input, with its digest
    page.get_by_text(re.compile("^training$", re.IGNORECASE)).first.wait_for()

    page.goto(pipeline.page("real_only", "/model-metrics"))
    page.get_by_placeholder("Search metric charts").fill("^val/auc$")
    page.wait_for_selector(".js-plotly-plot .scatterlayer path.js-line", state="attached")

    page.goto(pipeline.page("real_only", "/artifacts"))
    page.get_by_text("figures", exact=True).first.click()
    page.get_by_text(".png").first.click()
    picture = page.locator("img[src^='blob:'], img[src*='get-artifact']").first
    picture.wait_for()
    page.wait_for_function("image => image.naturalWidth > 100", arg=picture.element_handle())


def test_the_note_on_top_of_a_parent_leads_to_each_child(
    page: Any, pipeline: Pipeline, pictured: Any
) -> None:
    page.goto(pipeline.page("tune"))
    page.get_by_text("Show more").click()
    page.get_by_text("Children: 4 finished, 0 failed, 0 killed").wait_for()
    page.get_by_text("Phantom data.").wait_for()
    pictured("note")
    with page.context.expect_page() as other:
        page.get_by_test_id("note-editor-preview-content").get_by_text("trial_1").click()
    child = other.value
    child.get_by_role("heading", name="trial_1").wait_for(timeout=60_000)
    child.get_by_text("Run again:").wait_for(timeout=60_000)


def test_the_printed_link_opens_the_charts_of_the_children_alone(
    page: Any, pipeline: Pipeline, pictured: Any
) -> None:
    page.goto(pipeline.link("charts of the children", 0))  # of tune, which ends before main
    page.get_by_role("link", name="trial_3").wait_for()
    assert rows(page) == TRIALS
    page.get_by_placeholder("Search metric charts").fill("best/val/auc$|^val/(auc|loss)$")
    lines = "document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length >= 8"
    page.wait_for_function(lines)  # of val/auc and val/loss, a line a child
    pictured("charts")


def test_four_runs_are_compared_by_parallel_coordinates(
    page: Any, pipeline: Pipeline, pictured: Any
) -> None:
    page.goto(pipeline.link("charts of the children", 0))
    page.get_by_role("link", name="trial_3").wait_for()
    for box in page.locator(".ag-row input.ag-checkbox-input").all():
        box.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    chosen = page.get_by_role("heading", name="Comparing 4 Runs from 1 Experiment")
    chosen.wait_for()
    page.goto(pipeline.link("the children side by side", 0))  # the printed link shows the same
    chosen.wait_for()
    page.get_by_role("combobox").nth(1).click(force=True)  # the metrics
    page.locator("[class*=select-item-option]").first.hover()
    wanted = page.locator("[class*=select-item-option][title='best/val/auc']")
    while not wanted.count():  # the list is drawn as far as it is seen
        page.mouse.wheel(0, 150)
        page.wait_for_timeout(100)
    wanted.click()
    page.keyboard.press("Escape")
    axes = "[...document.querySelectorAll('.axis-title')].map(title => title.textContent)"
    page.wait_for_function(f"{axes}.includes('best/val/auc')")
    assert "real_percentage" in page.evaluate(axes)
    pictured("compare")


def test_the_slider_of_a_generators_samples_changes_the_picture(
    page: Any, pipeline: Pipeline, pictured: Any
) -> None:
    page.goto(pipeline.page("train_generator", "/model-metrics"))
    page.get_by_placeholder("Search metric charts").fill("samples/")
    cards = page.get_by_test_id("experiment-view-compare-runs-card")
    for number in range(2):  # the settings fill the card, and can be switched off
        cards.nth(number).get_by_test_id("experiment-view-compare-runs-card-menu").click()
        page.get_by_role("menuitem", name="Configure").click()
        page.get_by_label("Show run parameters").click()
        page.get_by_role("button", name=re.compile("Save changes|Save|Update")).last.click()
        page.get_by_role("dialog").wait_for(state="detached")
    seen = []
    for step in (4, 8):
        for number in range(2):
            cards.nth(number).get_by_role("slider").press("ArrowRight")
        for number in range(2):
            picture = cards.nth(number).locator(f"img[src*='step%2B{step}%2B']")
            picture.wait_for()
            page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
            seen.append(picture.get_attribute("src"))
    assert len({*seen}) == 4  # of two classes at two epochs
    pictured("samples")


def test_the_report_opens_inside_of_the_artifact_viewer(
    page: Any, pipeline: Pipeline, pictured: Any
) -> None:
    page.goto(pipeline.page(tab="/artifacts"))
    page.get_by_text("report.html", exact=True).first.click()
    report = page.frame_locator("iframe")
    report.get_by_role("heading", name="Evaluation").wait_for()
    report.get_by_text(f"{pipeline.metrics['test/auc']:.3f}", exact=True).first.wait_for()
    pictured("report")


def test_the_registered_model_shows_its_version_and_alias(
    page: Any, pipeline: Pipeline, pictured: Any
) -> None:
    page.goto(f"{pipeline.url}/#/models/classifier")
    page.get_by_role("link", name="Version 1").wait_for()
    page.get_by_text("champion").first.wait_for()
    pictured("model")
    page.get_by_role("link", name="Version 1").click()
    source = page.get_by_role("link", name=re.compile("^real_(only|and_synthetic)$"))
    source.wait_for()
    assert source.inner_text() in pipeline.children
