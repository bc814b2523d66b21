"""What a run says of itself beside its numbers, from its first moment to its last."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from mammo.run import Run
from mammo.tracking.context import describe
from mammo.tracking.family import alike, children, counted
from mammo.tracking.links import MOST, at, charts_page, compare_page
from mammo.tracking.note import NOTE, note
from mammo.tracking.sampler import sampled

if TYPE_CHECKING:
    from mammo.tracking.tracked import TrackedRun

LOG = logging.getLogger("mammo")


@contextmanager
def accompanied(run: Run, *, sample: bool) -> Iterator[None]:
    """Say what `run` is made with; `sample` the machine while it lasts."""
    describe(run)
    with sampled(run) if sample else nullcontext():
        yield


@contextmanager
def told(
    parent: Run, run: "TrackedRun", name: str, step: str, settings: Mapping[str, Any]
) -> Iterator[None]:
    """Count a child that a step opens by itself on its parent, and write its note."""
    with counted(parent, name, step) as child:
        child.run_id = run.id
        try:
            yield
        finally:
            child.metrics = {key: float(each) for key, each in run.last.items() if isfinite(each)}
    conclude(run, step, settings, child.metrics)


def conclude(
    run: "TrackedRun",
    step: str,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
    *,
    said: str = "",
) -> None:
    """Write the note of a run that is done; of one with children say where to compare them."""
    known_at = run.tracking.outbox.server_id  # a child that an outage kept waiting has one of ours
    family = [replace(each, run_id=known_at(each.run_id)) for each in children(run.folder)]
    place = run.tracking.experiment_id
    text = note(
        step,
        settings,
        usual(step),
        run.inputs,
        metrics,
        experiment_id=place,
        run_id=run.id,
        family=family,
        said=said,
    )
    run.tags({NOTE: text})
    known = [each.run_id for each in alike(family)]
    if len(known) > 1:
        address = run.tracking.address
        LOG.info("charts of the children:       %s", at(address, charts_page(place, run.id)))
        if len(known) <= MOST:
            LOG.info("the children side by side:    %s", at(address, compare_page(place, known)))


def usual(step: str) -> dict[str, Any]:
    """Default of every setting of `step`, those of the steps within it below their names."""
    from mammo.driver import COMMON, EVERYWHERE, defaults, step_module

    module = step_module(step)
    found = {**EVERYWHERE, **COMMON, **defaults(module)}
    nested = getattr(module, "NESTED", {})
    return found | {name: defaults(step_module(other)) for name, other in nested.items()}
