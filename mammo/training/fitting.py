"""Fits a LightningModule so that a killed run, started again, ends with the very same weights."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from mammo.run import Run
from mammo.training.checkpoints import WholeFiles, read_checkpoint
from mammo.training.devices import choose_device, fast_matrices, lightning_precision
from mammo.training.epochs import Clip, EpochEnd, Measure, Seeds
from mammo.training.finite import FiniteLoss
from mammo.training.processes import ALONE, Team, all_here, strategy_of
from mammo.training.sharing import in_parts, its_share
from mammo.training.uploading import Uploads


@dataclass(frozen=True)
class Fitted:
    """What `fit` hands back; the module itself carries the weights of `best`."""

    best: Path  # checkpoint with the best monitored value
    last: Path
    epochs: int  # trained in all, over every start of the run
    best_score: float
    best_epoch: int  # counted from 1
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
    patience_after: int = 0,
    min_delta: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
    gradient_clip: float = 0.0,
    accumulate: int = 1,
    callbacks: Sequence[Callback] = (),
    measures: Sequence[Measure] = (),
    team: Team = ALONE,
    even: bool = True,
    folder: str = "checkpoints",
    before: int = 0,
    upload_minutes: float = 0.0,
    about: Mapping[str, Any] | None = None,
) -> Fitted:
    """Train `module` for `epochs`, or on from `tracked.folder`/`folder`/last.ckpt.

    Everything the module logs is read once an epoch and goes to `tracked` with the epoch as step,
    together with what `measures` return. The global torch generator is set before every batch
    from (seed, epoch, batch), and before every validation batch from (seed, batch): what is drawn
    in one place moves nothing elsewhere. Python's and numpy's generators are not touched: nothing
    in a step may draw from them.

    `monitor` is a metric, `mode` min or max; `patience` epochs without a gain above `min_delta`
    end the training, 0 never does; the first `patience_after` epochs do not count. It is a metric
    of every epoch, or of some where it is one of `measures`: an epoch without it is never the best
    and ends nothing. Learning-rate schedulers have the interval "step": a checkpoint is written
    before an "epoch" scheduler has moved; one that follows the monitored value has a method `hear`
    (mammo.training.epochs.Hears).

    A batch of `train` is one optimizer step of the whole `team`; each of its processes computes
    its share, in `accumulate` parts, and the gradient is that of the batch; of a batch that is not
    `even`, without its last rows. Batch normalization looks at the whole batch of GPUs, and at the
    share of a process on a CPU. Of `val` each computes
    its share too; what a module logs of it with sync_dist and `weight` is the mean over all. A
    module that
    optimizes by hand clips by itself, and `accumulate` is 1. `before` epochs were trained before
    this one in other calls of the run: its own are logged behind them. A loss that is not finite
    ends the training with a ConfigError that names its batch. Weights are uploaded on the way at
    most every `upload_minutes`, with `about` in their manifest.
    """
    chosen = choose_device(device)
    by_hand = not module.automatic_optimization
    place = tracked.folder / folder
    epochs_end = EpochEnd(
        tracked,
        place,
        monitor=monitor,
        mode=mode,
        patience=patience,
        patience_after=patience_after,
        before=before,
        min_delta=min_delta,
        measures=measures,
    )
    uploads = Uploads(tracked, place, minutes=upload_minutes, about=about or {})
    clip = [Clip(gradient_clip)] if gradient_clip and not by_hand else []
    finite = FiniteLoss(place, accumulate=accumulate)
    with quiet(), fast_matrices(chosen):
        trainer = Trainer(
            **strategy_of(team, chosen, unused_parameters=by_hand),
            precision=lightning_precision(precision, chosen),
            max_epochs=epochs,
            callbacks=[
                *(Seeds(seed, team.rank), *clip, finite, *callbacks, epochs_end, uploads),
            ],
            plugins=[WholeFiles()],
            accumulate_grad_batches=accumulate,
            sync_batchnorm=team.size > 1 and chosen.type == "cuda",
            logger=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=place,
        )
        if team.size > 1:
            _keep_sigterm(trainer)
        resume = epochs_end.last if epochs_end.last.exists() else None
        shares = in_parts(train, team.rank, team.size, accumulate, even=even)
        for batches in (shares, val):  # what is copied from pinned memory lets the host go on
            batches.pin_memory = chosen.type == "cuda"
        with _exit_codes(), all_here(team):
            judged = its_share(val, team.rank, team.size)
            trainer.fit(module, shares, judged, ckpt_path=resume, weights_only=True)
    # A resumed run that had nothing left to do never reached the swap of averaged weights.
    module.load_state_dict(read_checkpoint(epochs_end.best)["state_dict"])
    return Fitted(
        epochs_end.best,
        epochs_end.last,
        epochs_end.epochs,
        epochs_end.best_score,
        epochs_end.best_epoch,
        epochs_end.images_seen,
        epochs_end.seconds,
        chosen,
    )


def _keep_sigterm(trainer: Trainer) -> None:
    """Leave the answer to SIGTERM as it is.

    Lightning's own, among several processes, broadcasts from within the signal, and waits for ever
    where it falls between two steps of the others' computation.
    """
    vars(trainer._signal_connector)["register_signal_handlers"] = lambda: None


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
def quiet() -> Iterator[None]:
    """Silence the hints of Lightning that do not apply here; everything else still shows."""
    # devices found, tips, "max_epochs reached"; processes that meet
    chatter = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [each.level for each in chatter]
    for each in chatter:
        each.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                r"The '\w+' does not have many workers",  # batches are read from a memory map
                r"GPU available but not used",  # device=cpu is a choice
                r"The `srun` command is available",  # a cluster's front node, or a launched job
                r"Found \d+ module\(s\) in eval mode",  # frozen parts stay in eval mode
                r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own call
                r"You defined a `validation_step` but have no `val_dataloader`",  # of a sweep
            ):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for each, level in zip(chatter, levels, strict=True):
            each.setLevel(level)
