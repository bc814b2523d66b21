"""`mammo part FOLDER NUMBER`: a share of a step that was launched, or their gathering."""

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mammo import driver
from mammo.commands import call
from mammo.errors import ConfigError, disk_in_plain_words
from mammo.launch import GATHER, LAUNCHED_BY, Order
from mammo.launching import are_spare

LOG = logging.getLogger("mammo")
_LOOK_S = 1.0  # between looks at who started this process


def part(folder: str, number: str) -> int:
    """Do part NUMBER of the step whose run keeps its state in FOLDER; `gather` ends the run.

    A launcher starts it; `--launcher none` prints these commands. Each may be run again, on any
    machine that sees the folder, and goes on where it was; `gather` comes last.
    """
    _end_with_the_launcher()
    order = Order.read(Path(folder))
    if number != GATHER and not (number.isdecimal() and int(number) < order.parts):
        raise ConfigError(f"number {number!r} is no part of this order; it has {order.parts}")
    if order.is_over:
        LOG.info("run %s has been gathered; nothing is left to do", order.run_id)
        return 0
    from mammo.tracking import store_in_plain_words

    with store_in_plain_words():
        if number == GATHER:
            _gather(order)
        else:
            _share(order, int(number))
    return 0


def _share(order: Order, number: int) -> None:
    """Do a part. The run itself is the gathering's to write: a run has one writer."""
    from mammo.tracking import Share

    _refuse_other_code(order)
    module, offline = driver.step_module(order.step), bool(order.settings.get("offline", False))
    run = Share(order.run_id, order.folder, order.work, order.inputs, offline=offline)
    with disk_in_plain_words(str(order.settings.get("source", ""))):
        module.part(run, number, order.parts, **driver.wanted(module, order.settings))
    order.commands()[0][number].note(0)  # for who runs it without a launcher


def _gather(order: Order) -> None:
    """Take up the run and do the step, which finds there what the parts have made."""
    from mammo.tracking import TrackedRun, Tracking, accompanied, closing, recount
    from mammo.tracking.ownership import STALE_S

    settings = order.settings
    with Tracking(order.work, offline=bool(settings.get("offline", False))) as tracking:
        # The machine of a job's first process may have failed: nobody can ask it
        again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        tracking.claim(order.run_id, wait_s=2 * STALE_S if again else 0.0)
        tracking.reopen(order.run_id)
        with closing(tracking, order.run_id, last=True):
            run = TrackedRun(
                tracking,
                order.run_id,
                folder=order.folder,
                work=order.work,
                inputs=order.inputs,
                launcher=partial(driver.launch, reuse=bool(settings.get("reuse", True))),
            )
            recount(run)
            _refuse_other_code(order)
            module = driver.step_module(order.step)
            if not are_spare(module):
                order.refuse_undone()
            with accompanied(run, order.step, settings, sample=True):
                result = driver.carry_out(order.step, module, run, settings)
    order.keep(result)


def _refuse_other_code(order: Order) -> None:
    if order.code not in ("", driver.code_digest()):
        raise ConfigError(
            "the code has changed since this step was launched, and its run would be of neither; "
            "put the old code back, or give the command again for a run of the new one"
        )


def _end_with_the_launcher() -> None:
    """Be told to stop when the process on this machine that started this one is gone.

    Killed, it tells nobody, and this one would work on beside its successor.
    """
    started_by = os.environ.pop(LAUNCHED_BY, "")  # of others that this one starts, it is not

    def watch() -> None:
        while os.getppid() == int(started_by):
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    if started_by:
        threading.Thread(target=watch, daemon=True).start()


def command(arguments: Sequence[str]) -> int:
    return call("part", part, arguments)
