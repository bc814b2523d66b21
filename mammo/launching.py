"""How a step is handed to others: parts in processes here, jobs of a cluster, commands by hand."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError, TrackingError, disk_in_plain_words
from mammo.launch import Local, Order, open_launcher, read_profile
from mammo.run import Result

if TYPE_CHECKING:
    from mammo.driver import Execution
    from mammo.tracking import TrackedRun

LOG = logging.getLogger("mammo")


def parts_here(execution: "Execution", tracked: "TrackedRun") -> None:
    """Do the parts of a step, if it has any, in processes of this machine."""
    order = _order(execution, tracked)
    if not order.parts:
        return
    module, device = execution.module, execution.settings.get("device", "auto")
    watch = getattr(module, "watch", None)
    with disk_in_plain_words():
        order.do_parts(
            Local(deals_gpus=device in ("auto", "cuda")),  # unless one GPU or the CPU is named
            meanwhile=partial(watch, tracked, execution.settings) if watch else lambda: None,
        )
    if not are_spare(module):
        order.refuse_undone()


def are_spare(module: Any) -> bool:
    """Whether the step itself does what its parts have left undone."""
    return bool(getattr(module, "SPARE_PARTS", False))


def by_jobs(execution: "Execution", fingerprint: str, folder: Path) -> Result:
    """Have a step done by jobs of a cluster, those that are on their way already included."""
    settings = execution.settings
    launcher = open_launcher("slurm", read_profile(str(settings.get("cluster", ""))), folder)
    going = Order.going(folder, launcher)
    if going is not None:  # its run is theirs
        execution.run_id = going.order.run_id
        LOG.info("%s: its jobs are on their way; waiting for them", execution.step)
        if execution.joined not in ("", execution.run_id):
            execution.link("continues", execution.run_id)
        with _ended_where_nobody_does(execution):
            return going.wait()
    order, jobs = _handed_on(execution, fingerprint, folder), int(settings.get("jobs", 1))
    with _ended_where_nobody_does(execution):
        return order.start(launcher, at_once=jobs if jobs > 1 else 0).wait()


def refuse_beside_jobs(folder: Path) -> None:
    """ConfigError where jobs that an earlier command has launched are on their way to do this."""
    if not shutil.which("squeue"):
        return
    going = Order.going(folder, open_launcher("slurm", read_profile(""), folder))
    if going is not None:
        raise ConfigError(
            f"job {', '.join(going.last.jobs)} of Slurm is on its way to do the same; wait for it "
            "with launcher slurm, or scancel it first"
        )


def scheduled(execution: "Execution", fingerprint: str, folder: Path) -> dict[str, Any]:
    """The commands of a step, for somebody else to run, the last one at the end."""
    order = _handed_on(execution, fingerprint, folder, join=False)
    parts, gather = order.commands()
    line = {**execution.line(order.run_id, Result()), "status": "SCHEDULED"}
    return {**line, "commands": [str(each) for each in [*parts, gather]]}


def _handed_on(
    execution: "Execution", fingerprint: str, folder: Path, *, join: bool = True
) -> Order:
    """Open the run, and leave it with an order to the processes that are to do it.

    A run has one writer: from here on that is the gathering process.
    """
    execution.run_id = run_id = execution.held_run(folder, join=join)
    with _ended_where_nobody_does(execution), disk_in_plain_words():
        order = _order(execution, execution.opened_run(run_id, fingerprint, folder))
        order.write()
        execution.tracking.hand_on(run_id)
    return order


def _order(execution: "Execution", tracked: "TrackedRun") -> Order:
    from mammo.driver import code_digest

    counted = getattr(execution.module, "parts", None)
    parts = counted(tracked, execution.settings) if counted else 0
    return Order.of(tracked, execution.step, execution.settings, parts, code=code_digest())


@contextmanager
def _ended_where_nobody_does(execution: "Execution") -> Iterator[None]:
    """Give a run that others do its end, where what ends the block has ended them too."""
    from mammo.tracking import close_failed

    try:
        yield
    except BaseException as error:
        # taken by the gathering process, which is about to end it itself, or of another store
        with suppress(TrackingError):
            if execution.tracking.is_open(execution.run_id):
                close_failed(execution.tracking, execution.run_id, error)
        raise
