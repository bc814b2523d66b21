"""Uploads the weights of a training on its way, so that a lost machine does not lose them."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from mammo.run import Run
from mammo.training.checkpoints import read_checkpoint

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"


class Uploads(Checkpoint):
    """The best and the last weights as artifacts, at most every `minutes`; 0 for never.

    checkpoints/best and checkpoints/last each hold weights.safetensors and a manifest: the sha256
    of the weights, epoch, optimizer step, metrics, run, commit, and `about` (data digest and
    settings). The best are sent again only where there are better ones. What cannot be uploaded
    now is sent with the next.

    Lightning runs it behind the callback that writes the checkpoints, in whose folder it works.
    """

    def __init__(
        self,
        tracked: Run,
        folder: Path,
        *,
        minutes: float,
        about: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracked, self._folder, self._about = tracked, folder, about
        self._seconds, self._clock = 60 * minutes, clock
        self._before = clock()
        self._sent: dict[str, str] = {}  # name -> sha256 of the weights

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        due = self._clock() - self._before >= self._seconds
        if not self._seconds or not due or not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for name in ("best", "last"):
            path = self._folder / f"{name}.ckpt"
            if path.exists():
                self._send(name, path, metrics if name == "last" else {})
        self._before = self._clock()

    def _send(self, name: str, path: Path, metrics: Mapping[str, float]) -> None:
        from safetensors.torch import save_file

        checkpoint, place = read_checkpoint(path), self._folder / "upload" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        tensors = {key: each.contiguous().clone() for key, each in checkpoint["state_dict"].items()}
        save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})
        sha256 = _sha256(place / WEIGHTS)
        if self._sent.get(name) == sha256:
            return
        manifest = {
            **self._about,
            "schema_version": 1,
            "name": name,
            "run_id": self._tracked.id,
            "commit": self._tracked.commit(),
            "epoch": int(checkpoint["epoch"]) + 1,
            "step": int(checkpoint["global_step"]),
            "metrics": dict(metrics or _metrics_of(checkpoint)),
            "files": {WEIGHTS: sha256},
        }
        (place / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        self._tracked.artifacts(place, f"checkpoints/{name}")
        self._sent[name] = sha256


def _metrics_of(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """What a checkpoint tells of its own epoch: the monitored value."""
    states = checkpoint.get("callbacks", {}).values()
    scores = [each["best_score"] for each in states if "best_score" in each]
    return {"monitored": float(scores[0])} if scores else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
