"""Steps on a real Slurm of two nodes: what an array makes is what one process makes."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import doors
import pytest
import small
import yaml
from drawn import digest, pixels, status, trained
from mlflow import MlflowClient
from slurm import Slurm

sys.path.insert(0, str(Path(__file__).resolve().parent / "steps"))

from classifier_data import TINY, write

pytestmark = pytest.mark.doors


@pytest.fixture
def cluster(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> str:
    """The profile of jobs with one core and one GPU each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return profile(tmp_path)


def profile(folder: Path, **asked: Any) -> str:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({"slurm": {"gpus": 1, "memory_gb": 0.4, **asked}}))
    return str(path)


def test_sample_as_an_array_of_four_has_the_pixels_of_one_task(
    slurm: Slurm, cluster: str, tmp_path: Path
) -> None:
    asked = {
        "generator": trained(tmp_path),
        "counts": "benign=14,malignant=22",
        "batch_size": 4,
        "steps": 4,
        "device": "cpu",
    }
    spread = doors.here("sample", launcher="slurm", cluster=cluster, workers=4, **asked)
    alone = doors.here("sample", work_dir=tmp_path / "other", reuse=False, **asked)
    assert digest(spread.run_id) == digest(alone.run_id)
    one, other = pixels(spread.run_id), pixels(alone.run_id)
    assert one.shape == (36, 1, 32, 32) and (one == other).all()
    states = slurm.ask("squeue", "-h", "-r", "-t", "all", "-o", "%j %T").splitlines()
    assert states.count("mammo-sample COMPLETED") == 4
    assert states.count("mammo-sample-gather COMPLETED") == 1
    assert status(spread.run_id) == "FINISHED"


def test_preprocess_as_an_array_of_four_has_the_digest_of_one_process(
    slurm: Slurm, cluster: str, tmp_path: Path
) -> None:
    same_in_four_parts(slurm, cluster, tmp_path, 64, dataset="phantom", patients=40, seed=3)


@pytest.mark.slow
def test_two_thousand_files_as_an_array_of_four_have_the_digest_of_one_process(
    slurm: Slurm, cluster: str, tmp_path: Path
) -> None:
    same_in_four_parts(slurm, cluster, tmp_path, 2000, dataset="phantom", patients=1250, seed=3)


@pytest.mark.slow
def test_mias_as_an_array_of_four_has_the_digest_of_one_process(
    slurm: Slurm, cluster: str, tmp_path: Path, shared: Path
) -> None:
    source = shared / "data/mini-mias"
    asked = {"dataset": "mias", "source": source, "task": "density2"}
    same_in_four_parts(slurm, cluster, tmp_path, 322, **asked)


def same_in_four_parts(
    slurm: Slurm, cluster: str, tmp_path: Path, images: int, **asked: Any
) -> None:
    """Four jobs decode each image once; digest and pixels are those of one process."""
    asked["image_size"] = 32
    spread = doors.here("preprocess", launcher="slurm", cluster=cluster, workers=4, **asked)
    assert spread.metrics["images"] == spread.metrics["images_decoded"] == images
    folder = tmp_path / "home"
    assert not [*folder.glob("runs/*/launch")]  # what the run left behind is gone with its end
    shutil.rmtree(folder / "datasets")  # or the second would find it there
    alone = doors.here("preprocess", reuse=False, **asked)
    assert digest(spread.run_id) == digest(alone.run_id)
    assert (pixels(spread.run_id) == pixels(alone.run_id)).all()
    names = slurm.ask("squeue", "-h", "-r", "-t", "all", "-o", "%j %T").splitlines()
    assert names.count("mammo-preprocess COMPLETED") >= 4


def test_folds_and_seeds_as_an_array_say_what_one_process_says_though_one_begins_anew(
    slurm: Slurm, cluster: str, tmp_path: Path
) -> None:
    """The task goes on in its MLflow run; so does the command, whose process is killed."""
    data = write(tmp_path / "datasets", folds=2)
    asked = {**TINY, "data": data.folder, "folds": "all", "seeds": "0,1", "val_fraction": 0.25}
    asked |= {"epochs": 12, "patience": 0}
    command = doors.mammo_command("train_classifier", launcher="slurm", cluster=cluster, **asked)
    log = tmp_path / "caller.log"
    with log.open("wb") as errors:
        caller = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
    run = wait_for(tmp_path, "runs/*/children/fold-0-seed-0/checkpoints/last.ckpt", caller, log)
    run_id = json.loads((run.parents[3] / "run.json").read_text())["run_id"]
    child = json.loads((run.parents[1] / "run.json").read_text())["run_id"]
    first = json.loads((run.parents[3] / "launch" / "jobs.json").read_text())["parts"][0]
    slurm.ask("scontrol", "requeue", first)
    slurm.hurry(first, timeout_s=120)
    caller.kill()
    caller.wait()
    again = doors.here("train_classifier", launcher="slurm", cluster=cluster, **asked)
    assert "its jobs are on their way" in again.err, again.err
    line = again.line
    assert line["run_id"] == run_id
    alone = doors.here("train_classifier", work_dir=tmp_path / "other", reuse=False, **asked)
    assert line["metrics"] == alone.metrics
    children = children_of(line["run_id"])
    assert len(children) == 4 and {each.info.status for each in children} == {"FINISHED"}
    assert child in {each.info.run_id for each in children}
    expected = {each.info.run_name: measured(each) for each in children_of(alone.run_id)}
    assert {each.info.run_name: measured(each) for each in children} == expected


def children_of(run_id: str) -> list[Any]:
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    return list(MlflowClient().search_runs(["0"], query))


def measured(run: Any) -> dict[str, float]:
    """What a run says of its model, without how long it took."""
    return {name: each for name, each in run.data.metrics.items() if "second" not in name}


def wait_for(tmp_path: Path, pattern: str, caller: subprocess.Popen[bytes], log: Path) -> Path:
    deadline = time.monotonic() + 300
    while not (found := sorted((tmp_path / "home").glob(pattern))):
        assert caller.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    return found[0]


def test_a_step_without_parts_is_one_job_and_its_error_is_told_here(
    slurm: Slurm, cluster: str, tmp_path: Path
) -> None:
    rows = small.real_rows({"benign": [1] * 8, "malignant": [1] * 8})
    for number, row in enumerate(rows):
        row["split"] = "train" if number % 4 else "val"
    real = small.dataset(tmp_path / "real", rows, about={"intensity": "header"})
    drawn = small.synthetic_rows({"benign": 3, "malignant": 3})
    seen = small.seen_by("run1", ["elsewhere"])
    synthetic = small.dataset(
        tmp_path / "made", drawn, seen=seen, name="made", about={"intensity": "header"}
    )
    asked = {"real": real.folder, "synthetic": synthetic.folder, "real_percentage": 0}
    where = {"launcher": "slurm", "cluster": cluster}
    refused = doors.here("mix", **where, **asked)
    assert refused.code == 2
    line = refused.err.strip().splitlines()[-1]
    assert line.startswith("mix: ") and "class benign: 6 requested, 3 available" in line
    (failed,) = MlflowClient().search_runs(["0"])
    assert (failed.info.status, f"mix: {failed.data.tags['error']}") == ("FAILED", line)
    mixed = doors.here("mix", **where, **asked, on_shortage="clamp")
    alone = doors.here(
        "mix", work_dir=tmp_path / "other", reuse=False, **asked, on_shortage="clamp"
    )
    assert digest(mixed.run_id) == digest(alone.run_id)
    assert mixed.metrics == alone.metrics and mixed.metrics["synthetic_images"] == 6
