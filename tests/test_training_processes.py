"""Processes that train together: what ends one ends all, and the parent says why."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import doors
import pytest
import small
import torch
from lightning.pytorch import LightningModule
from mlflow import MlflowClient
from torch.utils.data import DataLoader

from mammo.errors import ConfigError, DataError
from mammo.run import MemoryRun
from mammo.training import fit
from mammo.training.processes import ALONE, together
from mammo.training.sharing import in_parts

pytestmark = pytest.mark.doors
ROWS = [{"image": torch.full((3,), float(row)), "label": row % 2, "row": row} for row in range(8)]


class Line(LightningModule):
    """A linear model; `trouble(rank)` happens in its second step."""

    def __init__(self, trouble, rank):
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(3, 1)
        self._trouble, self._rank = trouble, rank

    def training_step(self, batch, index):
        if index == 1:
            self._trouble(self._rank)
        return self.line(batch["image"]).square().mean()

    def validation_step(self, batch, index):
        self.log("val/loss", self.line(batch["image"]).mean(), batch_size=4, sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(folder, trouble, team):
    fit(
        Line(trouble, team.rank),
        train=DataLoader(ROWS, batch_size=4),
        val=DataLoader(ROWS, batch_size=4),
        tracked=MemoryRun(folder),
        epochs=1,
        seed=0,
        monitor="val/loss",
        mode="min",
        device="cpu",
        team=team,
    )


def all_train(folder, trouble):
    work = partial(train, folder, trouble)
    with together(2, work) as team:
        work(team)


def refuses(rank):
    if rank == 1:
        raise DataError("image 7 is broken; fetch it again")


def is_killed(rank):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def fails_first(rank):
    if rank == 0:
        raise ConfigError("the first one has had enough")


def hears_sigterm_itself(rank):
    if rank == 0 and signal.getsignal(signal.SIGTERM) is not ours:
        raise ConfigError("another answers")


def ours(number, frame):
    """An answer to a signal."""


def waits(folder, rank):
    (folder / f"{rank}.pid").write_text(str(os.getpid()))
    time.sleep(60)


def test_the_mistake_that_another_process_meets_is_raised_with_its_message(tmp_path):
    with pytest.raises(DataError) as caught:
        all_train(tmp_path, refuses)
    assert str(caught.value) == "image 7 is broken; fetch it again"
    assert "in process 1 of 2" in caught.value.__notes__[0]


def test_a_process_that_the_system_ends_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"devices 2: the system ended a process .*-9"):
        all_train(tmp_path, is_killed)


def test_what_ends_the_first_process_ends_the_others_and_leaves_nothing_behind(tmp_path):
    before = dict(os.environ)
    with pytest.raises(ConfigError, match="has had enough"):
        all_train(tmp_path, fails_first)
    assert not torch.distributed.is_initialized()
    assert dict(os.environ) == before


def test_the_answer_to_sigterm_stays_that_of_the_process(tmp_path):
    """Lightning's own, a broadcast from within the signal, waits for ever now and then."""
    before = signal.signal(signal.SIGTERM, ours)
    try:
        all_train(tmp_path, hears_sigterm_itself)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_others_do_not_outlive_a_killed_parent(tmp_path):
    script = f"""
import sys
from functools import partial
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
if __name__ == "__main__":
    import test_training_processes as tests
    tests.all_train(Path({str(tmp_path)!r}), partial(tests.waits, Path({str(tmp_path)!r})))
"""
    path = tmp_path / "script.py"
    path.write_text(script)
    parent = subprocess.Popen([sys.executable, str(path)], cwd=tmp_path)
    pids = [tmp_path / f"{rank}.pid" for rank in range(2)]
    wait_for(lambda: all(each.exists() and each.read_text() for each in pids))
    other = int(pids[1].read_text())
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_running(other), seconds=20)


def wait_for(done, seconds=120):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_stopped_team_says_so_and_continues(store, tmp_path, monkeypatch, number, code):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = small.real_rows({"benign": [1] * 8, "malignant": [1] * 8})
    for place, row in enumerate(rows):
        row["split"] = "train" if place % 4 else "val"
    data = small.dataset(tmp_path / "elsewhere", rows)
    settings = {"data": data.folder, "channels": "8,16", "attention": 0, "patch": 1}
    settings |= {"batch_size": 4, "epochs": 8, "sample_every": 0, "device": "cpu", "devices": 2}
    process = subprocess.Popen(
        doors.mammo_command("train_generator", **settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=doors.environment(),
        start_new_session=True,
        text=True,
    )
    wait_for(lambda: list((tmp_path / "home").glob("runs/*/checkpoints/last.ckpt")))
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    (stopped,) = MlflowClient().search_runs(["0"])
    assert stopped.info.status == "KILLED"
    again = doors.mammo("train_generator", **settings)
    assert "continuing after epoch" in again.err
    assert again.run_id == stopped.info.run_id
    history = MlflowClient().get_metric_history(again.run_id, "val/loss")
    assert sorted({each.step for each in history}) == list(range(1, 9))


def test_shares_and_parts_of_a_batch_are_its_rows_each_once():
    loader = DataLoader(ROWS, batch_size=8)
    seen = [batch["row"].tolist() for rank in range(2) for batch in in_parts(loader, rank, 2, 2)]
    assert seen == [[0, 2], [4, 6], [1, 3], [5, 7]]


def test_the_last_rows_of_a_batch_that_cannot_be_shared_evenly_are_left_out():
    loader = DataLoader(ROWS, batch_size=5)
    seen = [
        [batch["row"].tolist() for batch in in_parts(loader, rank, 2, 1, even=False)]
        for rank in range(2)
    ]
    assert seen == [[[0, 2], [5]], [[1, 3], [6]]]


def test_one_process_alone_keeps_its_batches():
    loader = DataLoader(ROWS, batch_size=8)
    assert in_parts(loader, 0, 1, 1) is loader
    with together(1, print) as team:
        assert team is ALONE
