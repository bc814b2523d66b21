"""Weights on their way out of a training: when they are sent, and what their manifest says."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mammo.run import MemoryRun
from mammo.training.uploading import Uploads


class Sent(MemoryRun):
    """Keeps what was uploaded as it was at the time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sent: list[tuple[str, dict[str, Any], dict[str, torch.Tensor]]] = []
        self.logged_tags = {"mammo.git_commit": "abc"}

    def artifacts(self, path: Path, folder: str = "") -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        assert sorted(each.name for each in path.iterdir()) == sorted(
            ["manifest.json", *manifest["files"]]
        )
        for name, sha256 in manifest["files"].items():
            assert hashlib.sha256((path / name).read_bytes()).hexdigest() == sha256
        self.sent.append((folder, manifest, load_file(path / "weights.safetensors")))


class Training:
    """Epochs of a training whose weights are the epoch's number, its clock in minutes."""

    def __init__(self, folder: Path, minutes: float, rank: int = 0) -> None:
        self.now, self.run, self.folder = 0.0, Sent(folder), folder / "checkpoints"
        self.folder.mkdir()
        self.uploads = Uploads(
            self.run,
            self.folder,
            minutes=minutes,
            about={"data_digest": "d", "settings": {"lr": 0.1}},
            clock=lambda: 60 * self.now,
        )
        self.rank, self.epochs = rank, 0

    def epoch(self, *, at: float, best: bool = False) -> list[str]:
        """Names of what this epoch sent."""
        self.epochs, self.now = self.epochs + 1, at
        before = len(self.run.sent)
        checkpoint = {
            "state_dict": {"weight": torch.tensor([float(self.epochs)])},
            "epoch": self.epochs - 1,
            "global_step": 10 * self.epochs,
            "callbacks": {"EpochEnd": {"best_score": 0.5 + self.epochs / 100}},
        }
        torch.save(checkpoint, self.folder / "last.ckpt")
        if best:
            shutil.copyfile(self.folder / "last.ckpt", self.folder / "best.ckpt")
        trainer: Any = SimpleNamespace(
            is_global_zero=not self.rank,
            callback_metrics={"val/loss": torch.tensor(self.epochs / 4)},
        )
        self.uploads.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
        return [folder for folder, *_ in self.run.sent[before:]]


def test_weights_are_sent_no_more_often_than_asked_and_the_best_only_anew(tmp_path: Path) -> None:
    training = Training(tmp_path, minutes=10)
    assert training.epoch(at=4, best=True) == []
    assert training.epoch(at=9) == []
    assert training.epoch(at=12) == ["checkpoints/best", "checkpoints/last"]
    assert training.epoch(at=21, best=True) == []
    assert training.epoch(at=22) == ["checkpoints/best", "checkpoints/last"]
    assert training.epoch(at=33) == ["checkpoints/last"]


def test_a_manifest_says_whose_weights_these_are(tmp_path: Path) -> None:
    training = Training(tmp_path, minutes=1)
    training.epoch(at=0.5, best=True)
    training.epoch(at=1)
    (_, best, of_best), (_, last, of_last) = training.run.sent
    assert float(of_best["weight"]) == 1.0
    assert float(of_last["weight"]) == 2.0
    expected = {
        "schema_version": 1,
        "run_id": training.run.id,
        "commit": "abc",
        "data_digest": "d",
        "settings": {"lr": 0.1},
    }
    for manifest, own in (
        (best, {"name": "best", "epoch": 1, "step": 10, "metrics": {"monitored": 0.51}}),
        (last, {"name": "last", "epoch": 2, "step": 20, "metrics": {"val/loss": 0.5}}),
    ):
        assert {key: each for key, each in manifest.items() if key != "files"} == expected | own


@pytest.mark.parametrize(("minutes", "rank"), [(0, 0), (1, 1)])
def test_never_and_other_processes_send_nothing(tmp_path: Path, minutes: float, rank: int) -> None:
    training = Training(tmp_path, minutes=minutes, rank=rank)
    assert training.epoch(at=60, best=True) == []
