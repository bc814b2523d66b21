"""A preprocess that is killed again and again ends with the digest of one that nobody disturbed."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import doors
import numpy as np
import pytest
from dicoms import half_breast
from mlflow import MlflowClient
from PIL import Image

from mammo.data.dataset import Dataset
from mammo.data.intake import chunk_size

WORKERS = 2


def release(folder: Path, images: int) -> Path:
    """Pictures large enough that decoding takes a while; one of them is broken."""
    for number in range(images):
        picture = half_breast((1800, 1400), level=120 + 8 * (number // 16)).astype(np.uint8)
        column = 50 + 30 * (number % 16)
        picture[870:930, column : column + 60] = 20  # no two alike, also at 64 pixels
        path = folder / ("benign", "malignant")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, compress_level=1)
    broken = folder / "benign" / "50.png"
    broken.write_bytes(broken.read_bytes()[:5000])
    return folder


def command(source: Path) -> dict[str, Any]:
    return {
        "dataset": "folder",
        "source": source,
        "task": "label",
        "image_size": 64,
        "patient_pattern": r"(\d+)\.png",
        "strict": False,
        "workers": WORKERS,
    }


def killed(
    settings: dict[str, Any], moment: Callable[[], bool], delay_s: float, *, alone: bool
) -> int:
    """Start preprocess and kill it `delay_s` after `moment`; returns its exit code.

    `alone` kills the first process only, whose workers have then to notice.
    """
    process = subprocess.Popen(
        doors.mammo_command("preprocess", **settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=doors.environment(),
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not moment() and process.poll() is None:
        assert time.monotonic() < end, "the moment did not come"
        time.sleep(0.002)
    time.sleep(delay_s)
    if alone:
        process.kill()
    elif process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode in (0, -signal.SIGKILL), said
    return process.returncode


def check_kills(tmp_path: Path, images: int, *, amid: int, late: int) -> None:
    """Kill `amid` times while images are decoded and `late` times once all of them are."""
    draw = random.Random(20)
    settings = command(release(tmp_path / "release", images))
    home = tmp_path / "home"

    def decoded() -> int:
        return sum(path.stat().st_size for path in home.glob("runs/*/chunks/decoded"))

    def sealed() -> bool:
        return bool(list(home.glob("runs/*/chunks/sealed")))

    for number in range(amid):
        before = decoded()
        began = lambda before=before: decoded() > before  # noqa: E731
        assert killed(settings, began, draw.uniform(0, 0.2), alone=number % 2 == 0) == -9
        assert decoded() > before
        assert not list(home.glob("datasets/*"))
    for _ in range(late):
        killed(settings, sealed, draw.uniform(0, 0.3), alone=True)
    last = doors.here("preprocess", **settings)
    (found,) = (home / "datasets").iterdir()
    assert len(Dataset(found)) == last.metrics["images"] == images - 1
    Dataset(found).verify()
    lost = amid * WORKERS * chunk_size(images)
    assert images <= last.metrics["images_decoded"] <= images + lost
    (run,) = MlflowClient().search_runs(["0"])
    assert (run.info.run_id, run.info.status) == (last.run_id, "FINISHED")
    assert not list(home.glob("runs/*/dataset.partial"))

    other = tmp_path / "undisturbed"
    (other / "private").mkdir(parents=True)
    shutil.copy(home / "private" / "salt", other / "private" / "salt")
    whole = doors.here("preprocess", work_dir=other, reuse=False, **settings)
    assert whole.metrics["images_decoded"] == images
    assert [path.name for path in (other / "datasets").iterdir()] == [found.name]


@pytest.mark.doors
def test_three_kills_cost_no_more_than_the_chunks_under_way(store: str, tmp_path: Path) -> None:
    check_kills(tmp_path, 64, amid=2, late=1)


@pytest.mark.slow
def test_twenty_kills_cost_no_more_than_the_chunks_under_way(store: str, tmp_path: Path) -> None:
    check_kills(tmp_path, 256, amid=16, late=4)
