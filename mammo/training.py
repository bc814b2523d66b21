"""Fits a LightningModule so that a killed run, started again, ends with the very same weights."""

import io
import logging
import math
import os
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from torch.utils.data import DataLoader

from mammo.errors import CheckpointError, ConfigError
from mammo.run import Run
from mammo.seeds import derive

PRECISIONS = ("auto", "32", "bf16")
log = logging.getLogger("mammo")


@dataclass(frozen=True)
class Fitted:
    """What `fit` hands back; the module itself carries the weights of `best`."""

    best: Path  # checkpoint with the best monitored value
    last: Path
    epochs: int  # trained in all, over every start of the run
    best_score: float
    images_seen: int
    seconds: float  # spent in training batches and validation, over every start of the run
    device: torch.device  # it ran on


def fit(
    module: LightningModule,
    *,
    train: DataLoader[Any],
    val: DataLoader[Any],
    tracked: Run,
    epochs: int,
    seed: int,
    monitor: str,
    mode: str,
    patience: int = 0,
    min_delta: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
    gradient_clip: float = 0.0,
    callbacks: Sequence[Callback] = (),
) -> Fitted:
    """Train `module` for `epochs`, or on from `tracked.folder`/checkpoints/last.ckpt.

    Everything the module logs is read once an epoch and goes to `tracked` with the epoch as step.
    The global torch generator is set before every batch from (seed, epoch, batch), and before
    every validation batch from (seed, batch): what is drawn in one place moves nothing elsewhere.
    Python's and numpy's generators are not touched: nothing in a step may draw from them.
    `monitor` is a metric of every epoch, `mode` min or max; `patience` epochs without a gain
    above `min_delta` end the training, 0 never does. Learning-rate schedulers must have the
    interval "step": a checkpoint is written before an "epoch" scheduler has moved.
    """
    chosen = choose_device(device)
    folder = tracked.folder / "checkpoints"
    epochs_end = _EpochEnd(tracked, folder, monitor, mode, patience, min_delta)
    with _quiet():
        trainer = Trainer(
            accelerator=chosen.type,
            devices=1 if chosen.type == "cpu" else [chosen.index or 0],
            precision=_lightning_precision(precision, chosen),
            max_epochs=epochs,
            callbacks=[_Seeds(seed), *callbacks, epochs_end],
            plugins=[_WholeFiles()],
            gradient_clip_val=gradient_clip or None,
            logger=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        resume = epochs_end.last if epochs_end.last.exists() else None
        with _exit_codes():
            trainer.fit(module, train, val, ckpt_path=resume, weights_only=True)
    # A resumed run that had nothing left to do never reached the swap of averaged weights.
    module.load_state_dict(read_checkpoint(epochs_end.best)["state_dict"])
    return Fitted(
        epochs_end.best,
        epochs_end.last,
        epochs_end.epochs,
        epochs_end.best_score,
        epochs_end.images_seen,
        epochs_end.seconds,
        chosen,
    )


def choose_device(device: str) -> torch.device:
    """Torch device named by the setting `device`: auto, cpu, cuda or cuda:<number>."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if device != "cpu" and (kind != "cuda" or not (number.isdigit() or device == "cuda")):
        raise ConfigError(f"unknown device {device!r}; choose auto, cpu, cuda or cuda:<number>")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} is not there: this machine has {torch.cuda.device_count()} "
            "CUDA devices; use device=cpu or device=auto"
        )
    return torch.device(device)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Contents of a checkpoint, on the CPU; CheckpointError when it is missing or corrupt."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not compare the checksums
        if damaged:
            raise CheckpointError(
                f"checkpoint {path} is corrupt (checksum of {damaged}); {_REMEDY}"
            )
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} is missing; {_REMEDY}") from None
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path} is corrupt ({reason}); {_REMEDY}") from None


_REMEDY = "delete its folder to train afresh"


class Averaging(WeightAveraging):
    """Exponential moving average of the weights, used in validation and kept in checkpoints.

    The decay of update n is min(`decay`, (1 + n) / (10 + n)), so that a short run is not an
    average over its random start (the warm-up of Abadi et al. 2015, ExponentialMovingAverage).
    Buffers (running means of normalisation) are copied, not averaged.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=_averager(decay))


def _averager(decay: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def average(means: Any, values: Any, count: torch.Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(means, values, 1 - min(decay, (1 + n) / (10 + n)))

    return average


class _Seeds(Callback):
    """Sets the torch generators from (seed, epoch, batch) alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(derive(self._seed, "train", trainer.current_epoch, batch_idx))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        torch.manual_seed(derive(self._seed, "validation", dataloader_idx, batch_idx))


class _EpochEnd(Checkpoint):
    """Logs an epoch, keeps the best and the last checkpoint, stops when patience ends.

    Lightning runs it after all other callbacks. The order is log, best, last: wherever a kill
    falls, the epoch is repeated from the last whole one and gives the same numbers and files.
    """

    def __init__(
        self,
        tracked: Run,
        folder: Path,
        monitor: str,
        mode: str,
        patience: int,
        min_delta: float,
    ) -> None:
        self.best, self.last = folder / "best.ckpt", folder / "last.ckpt"
        self.epochs = 0
        self.best_score = math.nan
        self.images_seen = 0
        self.seconds = 0.0
        self._waited = 0
        self._tracked, self._monitor, self._patience = tracked, monitor, patience
        self._min_delta = min_delta
        self._sign = {"min": -1.0, "max": 1.0}[mode]

    def state_dict(self) -> dict[str, Any]:
        names = ("epochs", "best_score", "images_seen", "seconds", "_waited")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        if any(each.interval != "step" for each in trainer.lr_scheduler_configs):
            raise ValueError("learning-rate schedulers must have the interval 'step'")
        if self.epochs:
            log.info("continuing after epoch %d of %d", self.epochs, trainer.max_epochs)
        trainer.should_stop = self._out_of_patience

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._started = time.monotonic()
        self._images_before = self.images_seen

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images_seen += len(batch["label"])

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.epochs = trainer.current_epoch + 1
        elapsed = time.monotonic() - self._started
        self.seconds += elapsed
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        score = self._score(values)
        values["images_seen"] = self.images_seen
        values["images_per_second"] = (self.images_seen - self._images_before) / elapsed
        self._tracked.metrics(values, step=self.epochs)
        log.info("epoch %d/%d: %s", self.epochs, trainer.max_epochs, _line(values))
        if math.isnan(self.best_score) or self._gain(score) > self._min_delta:
            self.best_score = score
            self._waited = 0
            trainer.save_checkpoint(self.best)
        else:
            self._waited += 1
        trainer.save_checkpoint(self.last)
        trainer.should_stop = trainer.should_stop or self._out_of_patience

    @property
    def _out_of_patience(self) -> bool:
        return 0 < self._patience <= self._waited

    def _gain(self, score: float) -> float:
        return self._sign * (score - self.best_score)

    def _score(self, values: Mapping[str, float]) -> float:
        if self._monitor not in values:
            raise ConfigError(
                f"unknown metric {self._monitor!r} to monitor; choose one of {', '.join(values)}"
            )
        score = values[self._monitor]
        if not math.isfinite(score):
            raise ConfigError(
                f"{self._monitor} is {score} after epoch {self.epochs} and cannot choose the best "
                "checkpoint; lower lr or monitor another metric"
            )
        return score


class _WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its name, flushes it to the disk and renames it.

    Lightning's own writer goes through the system's temporary folder, often on another disk,
    and then the move is a copy that a kill can cut short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise CheckpointError(
                f"checkpoint {target} cannot be written ({error.strerror}); make room and run the "
                "same command again"
            ) from None

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def _lightning_precision(precision: str, device: torch.device) -> Any:
    """bf16 autocast where the device computes in it, float32 elsewhere; `auto` chooses."""
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if able else "32-true"
    return {"32": "32-true", "bf16": "bf16-mixed"}[precision]


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Lightning turns Ctrl+C into exit code 1 and SIGTERM into 0; here they stay what they are."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    try:
        yield
    except SIGTERMException:
        raise SystemExit(143) from None
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the hints of Lightning that do not apply here; everything else still shows."""
    chatter = logging.getLogger("lightning.pytorch")
    level = chatter.level
    chatter.setLevel(logging.WARNING)  # devices found, tips, "max_epochs reached"
    try:
        with warnings.catch_warnings():
            for message in (
                r"The '\w+' does not have many workers",  # batches are read from a memory map
                r"GPU available but not used",  # device=cpu is a choice
                r"Found \d+ module\(s\) in eval mode",  # frozen parts stay in eval mode
                r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own call
            ):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        chatter.setLevel(level)


def _line(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
