"""Further checkpoints of a training: the best by several metrics, the top few, snapshots."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class Keeping(Checkpoint):
    """Writes weights into `folder` when they are worth keeping; each file is a copy of its epoch.

    `best` maps a metric to min or max: best-<metric>.ckpt. The `top` epochs of the metric
    `ranked` (of equal ones the earlier): epoch-<number>.ckpt, removed when better ones come.
    Every `every` epochs (0 for never) a snapshot, which stays: snapshot-<number>.ckpt.

    Lightning runs it before the last checkpoint is written, so that a run which is killed in
    between repeats the epoch and writes the same files.
    """

    def __init__(
        self,
        folder: Path,
        *,
        best: Mapping[str, str],
        ranked: tuple[str, str],
        top: int = 0,
        every: int = 0,
    ) -> None:
        self.scores: dict[str, float] = {}
        self.ranking: list[tuple[float, int]] = []  # score, the higher the better, and epoch
        self.snapshots: list[int] = []
        self._folder, self._best, self._top, self._every = folder, best, top, every
        self._ranked, mode = ranked
        self._sign = _SIGN[mode]

    def state_dict(self) -> dict[str, Any]:
        return {
            "scores": dict(self.scores),
            "ranking": [list(each) for each in self.ranking],
            "snapshots": list(self.snapshots),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scores = dict(state_dict["scores"])
        self.ranking = [(score, epoch) for score, epoch in state_dict["ranking"]]
        self.snapshots = list(state_dict["snapshots"])

    def files(self) -> Iterator[tuple[str, Path]]:
        """Name and checkpoint of all that is kept."""
        names = [f"best-{_plain(metric)}" for metric in self._best if metric in self.scores]
        names += [_ranked(epoch) for _, epoch in self.ranking]
        names += [f"snapshot-{epoch:04d}" for epoch in self.snapshots]
        for name in names:
            yield name, self._path(name)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for metric, mode in self._best.items():
            value = values.get(metric, math.nan)
            before = self.scores.get(metric, -_SIGN[mode] * math.inf)
            if _SIGN[mode] * value > _SIGN[mode] * before:
                self.scores[metric] = value
                self._save(trainer, f"best-{_plain(metric)}")
        if self._top:
            self._rank(trainer, self._sign * values.get(self._ranked, math.nan), epoch)
        if self._every and epoch % self._every == 0:
            self.snapshots.append(epoch)
            self._save(trainer, f"snapshot-{epoch:04d}")

    def _rank(self, trainer: Trainer, score: float, epoch: int) -> None:
        if math.isnan(score):
            return
        ranking = sorted([*self.ranking, (score, epoch)], key=lambda each: (-each[0], each[1]))
        self.ranking, left_out = ranking[: self._top], ranking[self._top :]
        if (score, epoch) in self.ranking:
            self._save(trainer, _ranked(epoch))
        for _, other in left_out:
            self._path(_ranked(other)).unlink(missing_ok=True)

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(self._path(name), weights_only=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.ckpt"


_SIGN = {"min": -1.0, "max": 1.0}


def _ranked(epoch: int) -> str:
    return f"epoch-{epoch:04d}"


def _plain(metric: str) -> str:
    """`metric` as part of a file's name: val/auc becomes val-auc."""
    return metric.replace("/", "-")
