"""`mammo part FOLDER NUMBER`: a share of a step that was launched, or their gathering."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mammo import driver
from mammo.commands import call
from mammo.errors import ConfigError
from mammo.launch import GATHER, Order


def part(folder: str, number: str) -> int:
    """Do part NUMBER of the step whose run keeps its state in FOLDER; `gather` ends the run.

    A launcher starts it; `--launcher none` prints these commands. Each may be run again, on any
    machine that sees the folder, and goes on where it was; `gather` comes last.
    """
    order = Order.read(Path(folder))
    if number != GATHER and not (number.isdecimal() and int(number) < order.parts):
        raise ConfigError(f"number {number!r} is no part of this order; it has {order.parts}")
    from mammo.tracking import TrackedRun, Tracking, closing, store_in_plain_words

    module = driver.step_module(order.step)
    with store_in_plain_words():
        tracking = Tracking()
        reuse = bool(order.settings.get("reuse", True))
        run = TrackedRun(
            tracking,
            order.run_id,
            folder=order.folder,
            work=order.work,
            inputs=order.inputs,
            launcher=partial(driver.launch, reuse=reuse),
        )
        if number == GATHER:
            tracking.reopen(order.run_id)
            with closing(tracking, order.run_id):
                order.refuse_undone()
                driver.carry_out(module, run, order.settings)
        else:
            settings = driver.wanted(module, order.settings)
            module.part(run, int(number), order.parts, **settings)
            order.commands()[0][int(number)].note(0)  # for who runs it without a launcher
    return 0


def command(arguments: Sequence[str]) -> int:
    return call("part", part, arguments)
