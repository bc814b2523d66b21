"""Training while servers, disks and clients fail: nothing is lost, and nobody waits for it."""

import contextlib
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import servers
import small
from stack import Stack, checkpoint, picture, pixels, running_stack

from mammo import cli, driver
from mammo.run import Result

STEP_S = 0.05  # of training
IMAGES, CHECKPOINTS = 10, 20  # one every so many steps
pytestmark = pytest.mark.doors


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    try:
        with running_stack(tmp_path_factory.mktemp("stack")) as running:
            yield running
    except servers.Absent as absent:
        pytest.skip(str(absent))


class Training:
    """A step that trains for a while, logs what training logs and measures how long that takes."""

    def __init__(self, steps: int, fault: Callable[[int], None]) -> None:
        self.steps, self.fault = steps, fault
        self.run_id = ""
        self.longest = ("", 0.0)

    def run(self, tracked: Any) -> Result:
        self.run_id = tracked.id
        for step in range(1, self.steps + 1):
            self.fault(step)
            time.sleep(STEP_S)  # the work itself
            numbers = {"train/loss": 1 / step, "val/auc": step / self.steps}
            self._timed(tracked.metrics, numbers, step)
            if step % IMAGES == 0:
                self._timed(tracked.image, "samples/benign", picture(step), step)
            if step % CHECKPOINTS == 0:
                place = tracked.folder / f"{step}.ckpt"
                place.write_bytes(checkpoint(step))
                self._timed(tracked.artifacts, place, "checkpoints")
            if step == self.steps // 2:
                start = time.perf_counter()
                with tracked.child("fold 0", "train_classifier", {"fold": 0}) as child:
                    child.metrics({"fold/auc": 0.5}, step)
                self._note("child", start)
        return Result({"model": tracked.uri("checkpoints")}, {"auc": 1.0}, digest="d" * 32)

    def _timed(self, call: Callable[..., None], *args: Any) -> None:
        start = time.perf_counter()
        call(*args)
        self._note(call.__name__, start)

    def _note(self, name: str, start: float) -> None:
        took = time.perf_counter() - start
        if took > self.longest[1]:
            self.longest = (name, took)


CURRENT: dict[str, Any] = {}


def run(tracked: Any, *, seed: int = 0) -> Result:
    """Train as the test says."""
    return CURRENT["training"].run(tracked)


@pytest.fixture
def train(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Run a Training through the command line; returns it, the exit code and its last line."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.url)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "faults")
    monkeypatch.setenv("MAMMO_CLOSE_S", "120")
    toy = ModuleType("toy")
    toy.run = run  # type: ignore[attr-defined]
    monkeypatch.setattr(driver, "step_module", lambda step: toy)

    def trained(
        steps: int, fault: Callable[[int], None] = lambda step: None, *arguments: str
    ) -> tuple[Training, int, dict[str, Any]]:
        training = CURRENT["training"] = Training(steps, fault)
        code = cli.run_entry("evaluate", [f"--seed={time.time_ns() % 2**31}", *arguments])
        out = capsys.readouterr().out.splitlines()
        return training, code, json.loads(out[-1]) if out else {}

    return trained


def assert_all_is_there(stack: Stack, run_id: str, steps: int, folder: Path) -> None:
    """Each number once, each image and checkpoint as it was, and the states of both runs."""
    expected = list(range(1, steps + 1))
    assert stack.rows(run_id, "train/loss") == [(step, 1 / step) for step in expected]
    assert stack.rows(run_id, "val/auc") == [(step, step / steps) for step in expected]
    assert stack.status(run_id) == "FINISHED"
    objects = stack.objects(run_id)
    images = {path: body for path, body in objects.items() if path.endswith(".png")}
    assert len(images) == steps // IMAGES
    for path, body in images.items():
        step = int(path.split("+step+")[1].split("+")[0])
        assert np.array_equal(pixels(body, folder), picture(step))
        assert path.replace(".png", "+compressed.webp") in objects
    for step in range(CHECKPOINTS, steps + 1, CHECKPOINTS):
        found = hashlib.sha256(objects[f"checkpoints/{step}.ckpt"]).hexdigest()
        assert found == hashlib.sha256(checkpoint(step)).hexdigest()
    query = "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = %s"
    ((child,),) = stack.database.query(query, run_id)
    assert stack.rows(child, "fold/auc") == [(steps // 2, 0.5)]
    assert stack.status(child) == "FINISHED"


def assert_nothing_is_left(home: Path) -> None:
    assert not (home / "spool").exists() or list((home / "spool").iterdir()) == []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_without_a_fault_nothing_stays_on_the_client(
    stack: Stack, train: Any, home: Path, tmp_path: Path
) -> None:
    training, code, line = train(40)
    assert code == 0
    assert_all_is_there(stack, line["run_id"], 40, tmp_path)
    assert_nothing_is_left(home)
    assert training.longest[1] < 1


@pytest.mark.parametrize(
    ("seconds", "steps"), [(5, 160), pytest.param(60, 1300, marks=pytest.mark.slow)]
)
def test_the_server_is_away_for_a_while(
    seconds: float, steps: int, stack: Stack, train: Any, home: Path, tmp_path: Path
) -> None:
    back = []

    def fault(step: int) -> None:
        if step == steps // 4:
            back.append(stack.mlflow.away(seconds))

    training, code, line = train(steps, fault)
    back[0].join()
    assert code == 0
    assert_all_is_there(stack, line["run_id"], steps, tmp_path)
    assert_nothing_is_left(home)
    assert training.longest[1] < 1, training.longest


def test_postgresql_is_restarted(stack: Stack, train: Any, home: Path, tmp_path: Path) -> None:
    back = []

    def fault(step: int) -> None:
        if step == 20:
            back.append(stack.postgres.away(3))

    training, code, line = train(120, fault)
    back[0].join()
    assert code == 0
    assert_all_is_there(stack, line["run_id"], 120, tmp_path)
    assert_nothing_is_left(home)
    assert training.longest[1] < 1, training.longest


def test_minio_stops_during_an_upload(stack: Stack, train: Any, home: Path, tmp_path: Path) -> None:
    back, seen = list[Any](), list[int]()

    def fault(step: int) -> None:
        if step == 20:
            back.append(stack.minio.away(6))
        if step == 100:  # it is still away
            query = "SELECT count(*) FROM metrics WHERE key = 'train/loss' GROUP BY run_uuid"
            seen.extend(int(row[0]) for row in stack.database.query(query))

    training, code, line = train(120, fault)
    back[0].join()
    assert code == 0
    assert any(30 < rows < 100 for rows in seen)  # numbers do not wait for files
    assert_all_is_there(stack, line["run_id"], 120, tmp_path)
    assert_nothing_is_left(home)
    assert training.longest[1] < 1, training.longest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_the_disk_of_the_spool_is_full(
    small_disk: Path, stack: Stack, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMO_HOME", str(small_disk / "home"))
    filler = small_disk / "filler"

    def fault(step: int) -> None:
        if step == 65:  # not a byte is left, until the training is nearly over
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        if step == 110:
            filler.unlink()

    monkeypatch.setitem(globals(), "CHECKPOINTS", 1000)  # it has no room for its own files
    training, code, line = train(120, fault)
    assert code == 0
    assert_all_is_there(stack, line["run_id"], 120, tmp_path)
    assert_nothing_is_left(small_disk / "home")
    assert training.longest[1] < 1, training.longest


def test_a_client_is_killed_and_sync_brings_what_it_logged(
    stack: Stack, train: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "killed-at"
    pid = os.fork()
    if pid == 0:  # trains, and dies in the middle with the server away for the last second

        def fault(step: int) -> None:
            if step == 60:
                marker.write_text(str(step))
                os.kill(os.getpid(), signal.SIGKILL)

        train(200, fault)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    (folder,) = (home / "spool").iterdir()
    run_id = json.loads((folder / "cursor").read_text())["run_id"]
    sent = len(stack.rows(run_id, "train/loss"))
    assert sent < 59
    assert stack.status(run_id) == "RUNNING"
    assert cli.main(["sync"]) == 0
    assert stack.rows(run_id, "train/loss") == [(step, 1 / step) for step in range(1, 60)]
    assert stack.status(run_id) == "KILLED"
    assert "without a word" in stack.tags(run_id)["mammo.stopped"]
    objects = stack.objects(run_id)
    for step in (20, 40):
        assert objects[f"checkpoints/{step}.ckpt"] == checkpoint(step)
    assert sum(path.endswith(".png") for path in objects) == 5
    assert_nothing_is_left(home)


def test_the_second_of_two_clients_on_one_run_is_refused(
    stack: Stack, train: Any, tmp_path: Path
) -> None:
    answers = []

    def fault(step: int) -> None:
        if step == 40:
            run_id = CURRENT["training"].run_id
            with_it = {"MLFLOW_RUN_ID": run_id, "MAMMO_HOME": str(tmp_path / "elsewhere")}
            answers.append((run_id, second_client(with_it)))

    _, code, line = train(60, fault)
    run_id, (second_code, said) = answers[0]
    assert (code, line["run_id"]) == (0, run_id)
    assert second_code == 2, said
    assert f"run {run_id} is being written by another process" in said
    assert "Traceback" not in said
    assert_all_is_there(stack, run_id, 60, tmp_path)


def second_client(environment: dict[str, str]) -> tuple[int, str]:
    """Start the entry point in a process of its own; its code and what it says."""
    code = (
        "import stack, test_faults\n"
        "from mammo import cli, driver\n"
        "driver.step_module = lambda step: test_faults\n"
        "raise SystemExit(cli.run_entry('evaluate', []))\n"
    )
    folders = [str(Path(__file__).parent), str(servers.ROOT / "tests"), str(servers.ROOT)]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_the_server_goes_for_good_and_sync_brings_all_later(
    stack: Stack,
    train: Any,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MAMMO_CLOSE_S", "3")

    def fault(step: int) -> None:
        if step == 15:
            stack.mlflow.stop()

    with caplog.at_level(logging.WARNING, "mammo"):
        training, code, line = train(60, fault)
    assert code == 0  # the step itself succeeded
    (said,) = [each.message for each in caplog.records if "mammo sync" in each.message]
    assert str(home / "spool") in said
    assert training.longest[1] < 1, training.longest
    assert cli.main(["sync"]) == 2
    assert "does not answer" in capsys.readouterr().out
    stack.mlflow.start()
    assert cli.main(["sync"]) == 0
    assert_all_is_there(stack, line["run_id"], 60, tmp_path)
    assert_nothing_is_left(home)


def parent(tracked: Any, *, source: str = "", seed: int = 0) -> Result:
    """Launch a step that makes a dataset and, with the server gone, two that use it."""
    made = tracked.launch("preprocess", {"source": source})
    CURRENT["stack"].mlflow.stop()
    for number in (1, 2):  # the second is the same step again
        used = tracked.launch("mix", {"data": made.outputs["dataset"]})
        tracked.metrics({"images": used.metrics["images"]}, number)
    return Result(used.outputs)


def maker(tracked: Any, *, source: str = "", seed: int = 0) -> Result:
    """Hand on the dataset in `source`."""
    tracked.artifacts(Path(source), "dataset")
    about = json.loads((Path(source) / "dataset.json").read_text())
    return Result({"dataset": tracked.uri("dataset")}, {}, about["digest"])


def user(tracked: Any, *, data: str = "", seed: int = 0) -> Result:
    """Count the rows of a dataset that another step made."""
    (found,) = tracked.inputs["data"]
    rows = len(pd.read_parquet(found.path / "manifest.parquet"))
    return Result({"dataset": found.uri}, {"images": float(rows)}, found.digest)


def test_steps_use_each_other_while_the_server_is_away(
    stack: Stack, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    modules = {"main": parent, "preprocess": maker, "mix": user}
    for name, function in modules.items():
        module = ModuleType(name)
        module.run = function  # type: ignore[attr-defined]
        modules[name] = module  # type: ignore[assignment]
    modules["mix"].INPUTS = {"data": "dataset"}  # type: ignore[attr-defined]
    monkeypatch.setattr(driver, "step_module", modules.__getitem__)
    monkeypatch.setitem(CURRENT, "stack", stack)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.url)
    monkeypatch.setenv("MAMMO_TRACKING_WAIT_S", "2")
    monkeypatch.setenv("MAMMO_CLOSE_S", "2")
    rows = small.real_rows({"benign": [2], "malignant": [1]})
    source = small.dataset(home / "datasets", rows).folder
    assert cli.run_entry("main", [f"--source={source}"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    stack.mlflow.start()
    assert cli.main(["sync"]) == 0
    assert_nothing_is_left(home)
    assert stack.status(line["run_id"]) == "FINISHED"
    assert stack.rows(line["run_id"], "images") == [(1, 3.0), (2, 3.0)]
    query = "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = %s"
    below = [stack.tags(str(row[0])) for row in stack.database.query(query, line["run_id"])]
    assert sorted(each["mammo.step"] for each in below) == ["mix", "preprocess"]
    (using,) = [each for each in below if each["mammo.step"] == "mix"]
    (making,) = [each for each in below if each["mammo.step"] == "preprocess"]
    assert line["outputs"]["dataset"] == f"runs:/{using['mammo.input.data']}/dataset"
    assert making["mammo.digest"] == source.name
