"""Settings that are searched before training: the learning rate and the batch size."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mammo.generators import family
from mammo.generators.material import Material
from mammo.run import Run
from mammo.training import Averaging, choose_device
from mammo.training.finders import kept, largest_batch, steepest, step_memory, sweep, sweep_figure
from mammo.training.sharing import in_parts

LOG = logging.getLogger("mammo")


def settled(
    tracked: Run, material: Material, plan: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """`settings` with what find_batch_size and find_lr find, logged as effective.<name>.

    What was found stays in the run's folder: a run that is continued goes on with it. The
    searches train learners of their own, so that training is what it would be were the values
    given by hand, to the last bit.
    """
    effective = dict(settings)
    path = tracked.folder / "found.json"
    if settings["find_batch_size"]:
        size = kept(path, "batch_size", lambda: _batch_size(tracked, material, plan, effective))
        effective["batch_size"] = size
        tracked.params({"effective.batch_size": size})
        LOG.info("find_batch_size: trains with batch_size %d", size)
    if settings["find_lr"]:
        lr = kept(path, "lr", lambda: _lr(tracked, material, plan, effective))
        effective["lr"] = lr
        tracked.params({"effective.lr": lr})
        LOG.info("find_lr: trains with lr %g (figures/lr_finder.png)", lr)
    return effective


def _lr(
    tracked: Run, material: Material, plan: Mapping[str, Any], settings: Mapping[str, Any]
) -> float:
    """Sweep on one device, which takes the shares of all one after the other."""
    parts = settings["nodes"] * settings["devices"] * settings["accumulate"]
    batches, _ = material.batches(settings["batch_size"], settings["seed"])
    rates, losses = sweep(
        family(settings["generator"]).learner(plan, material, settings),
        in_parts(batches, 0, 1, parts),
        folder=tracked.folder,
        device=settings["device"],
        precision=settings["precision"],
        gradient_clip=settings["gradient_clip"],
        accumulate=parts,
        seed=settings["seed"],
    )
    chosen = steepest(rates, losses)
    tracked.figure("lr_finder", sweep_figure(rates, losses, chosen))
    return chosen


def _batch_size(
    tracked: Run, material: Material, plan: Mapping[str, Any], settings: Mapping[str, Any]
) -> int:
    """Double the batch while a process's part of it fits; at most all training images.

    The maker of gan takes its step in every batch that is tried, not first after critic_steps.
    """
    parts = settings["nodes"] * settings["devices"] * settings["accumulate"]
    settings = {**settings, "critic_steps": 1}

    def make() -> Any:
        averaging = [Averaging(settings["ema"])] if settings["ema"] else []
        return family(settings["generator"]).learner(plan, material, settings), averaging

    used, room = step_memory(
        make,
        lambda images: material.batches(max(1, images // parts), settings["seed"])[0],
        folder=tracked.folder,
        device=settings["device"],
        precision=settings["precision"],
        seed=settings["seed"],
    )
    # processes on a CPU share the machine's memory, GPUs have each their own
    sharing = 1 if choose_device(settings["device"]).type == "cuda" else settings["devices"]
    size, _ = largest_batch(settings["batch_size"], len(material.train), used, room / sharing)
    return size
