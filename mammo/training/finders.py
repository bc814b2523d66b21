"""Searches before training, on modules that are thrown away: a learning rate, a batch size."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.tuner import Tuner, lr_finder
from torch.utils.data import DataLoader

from mammo.errors import ConfigError
from mammo.seeds import derive
from mammo.training.devices import choose_device, fast_matrices, lightning_precision
from mammo.training.fitting import quiet
from mammo.training.memory import memory_of
from mammo.training.processes import ALONE, strategy_of

LOWEST, HIGHEST, RATES = 1e-7, 1e-1, 100  # of the sweep, exponential
DIVERGED = 4.0  # times the best loss, at which the sweep ends
SMOOTHING = 0.98  # Lightning's forgetting of the losses of a sweep
SKIPPED = 10  # first rates, over which the smoothed loss settles
SHARE = 0.8  # of the free memory that a step may take


def kept(path: Path, name: str, find: Callable[[], Any]) -> Any:
    """What `find` finds, kept in the JSON file `path` under `name` and not searched twice."""
    known = json.loads(path.read_text()) if path.exists() else {}
    if name not in known:
        known[name] = find()
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(known) + "\n")
        partial.replace(path)
    return known[name]


def sweep(
    module: LightningModule,
    train: DataLoader[Any],
    *,
    folder: Path,
    device: str,
    precision: str,
    gradient_clip: float,
    accumulate: int,
    seed: int,
) -> tuple[list[float], list[float]]:
    """Learning rates from `LOWEST` up, a step each, and the smoothed losses; `module` is used up.

    Lightning's range test (Smith 2017); the global generators are left as they were.
    """
    parameters = list(module.parameters())
    if gradient_clip:  # the range test leaves no callback of ours in place
        module.on_before_optimizer_step = lambda optimizer: torch.nn.utils.clip_grad_norm_(
            parameters, gradient_clip
        )
    chosen = choose_device(device)
    with (
        _no_bar(),
        _own_trainer(
            chosen, precision, seed, folder, max_steps=RATES, accumulate_grad_batches=accumulate
        ) as trainer,
    ):
        found = Tuner(trainer).lr_find(
            module,
            train,
            min_lr=LOWEST,
            max_lr=HIGHEST,
            num_training=RATES,
            early_stop_threshold=DIVERGED,
            update_attr=False,
        )
    assert found is not None
    # Lightning corrects a mean of n losses as if it were of n + 1: the first is shown halved
    losses = [
        loss * (1 - SMOOTHING ** (number + 1)) / (1 - SMOOTHING**number)
        for number, loss in enumerate(found.results["loss"], 1)
    ]
    return list(found.results["lr"]), losses


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate at which the loss falls fastest, per factor of the rate; the first ones skipped.

    Lightning's own suggestion goes by the slope per unit of the rate, which the noise of the
    smallest rates decides: a step between them is 100,000 times shorter than between the largest.
    """
    logs, heights = np.log(rates)[SKIPPED:-1], np.asarray(losses)[SKIPPED:-1]
    known = np.isfinite(heights)
    logs, heights = logs[known], heights[known]
    slopes = np.gradient(heights, logs) if len(logs) > 1 else np.zeros(1)
    if not slopes.min() < 0:
        raise ConfigError(
            f"find_lr found no learning rate between {LOWEST:g} and {HIGHEST:g} at which the loss "
            "falls; give lr"
        )
    return float(f"{math.exp(logs[int(slopes.argmin())]):.3g}")


def sweep_figure(rates: Sequence[float], losses: Sequence[float], chosen: float) -> Any:
    """The losses over the rates, and the one that was chosen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses)
    axes.axvline(chosen, color="tab:red", label=f"{chosen:g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, smoothed")
    axes.legend()
    return figure


def largest_batch(
    start: int, most: int, used: Callable[[int], float], room: float
) -> tuple[int, dict[int, float]]:
    """`start` doubled while it is at most `most` and a step's memory within `room`.

    `used` runs a step of a batch and tells its memory, inf where it did not fit. No step is tried
    that would not fit if memory grew on in a straight line. Returns what was used by size, too.
    """
    seen = {start: used(start)}
    if seen[start] > room:
        raise ConfigError(
            f"batch_size {start} does not fit into the memory; lower it or raise accumulate"
        )
    size, before = start, 0.0
    while 2 * size <= most:
        slope = seen[size] - before  # by doubling the size before, or from nothing
        expected = seen[size] + (2 if before else 1) * slope
        if expected > room:
            break
        seen[2 * size] = used(2 * size)
        if seen[2 * size] > room:
            break
        size, before = 2 * size, seen[size]
    return size, seen


def step_memory(
    make: Callable[[], tuple[LightningModule, list[Callback]]],
    loader: Callable[[int], DataLoader[Any]],
    *,
    folder: Path,
    device: str,
    precision: str,
    seed: int,
) -> tuple[Callable[[int], float], float]:
    """A function that trains two steps of a batch size and tells their memory; the memory there is.

    The second step is the larger one: the optimizer has its state then. Bytes.
    """
    chosen = choose_device(device)
    memory = memory_of(chosen)

    def used(images: int) -> float:
        module, callbacks = make()

        def steps() -> None:
            with _own_trainer(
                chosen,
                precision,
                seed,
                folder,
                max_epochs=2,
                limit_train_batches=1,
                limit_val_batches=0,
                callbacks=callbacks,
            ) as trainer:
                trainer.fit(module, loader(images))

        return memory.peak_of(steps)

    return used, SHARE * memory.room


@contextmanager
def _no_bar() -> Iterator[None]:
    """Without the progress bar that Lightning's range test draws whatever its Trainer was told."""
    shown: Any = vars(lr_finder)["tqdm"]
    vars(lr_finder)["tqdm"] = partial(shown, disable=True)
    try:
        yield
    finally:
        vars(lr_finder)["tqdm"] = shown


@contextmanager
def _own_trainer(
    device: torch.device, precision: str, seed: int, folder: Path, **settings: Any
) -> Iterator[Trainer]:
    """A Trainer of a search, which leaves the global generators as they were."""
    generators = [device] if device.type == "cuda" else []
    with quiet(), fast_matrices(device), torch.random.fork_rng(generators):
        torch.manual_seed(derive(seed, "search"))
        yield Trainer(
            **strategy_of(ALONE, device, unused_parameters=False),
            **{"max_epochs": -1, **settings},
            precision=lightning_precision(precision, device),
            logger=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
