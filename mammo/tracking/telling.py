"""What a run says of itself beside its numbers, from its first moment to its last."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mammo.run import Pruned, Run, Stopped
from mammo.tracking.context import describe
from mammo.tracking.ending import reason
from mammo.tracking.family import Child, alike, children, counted
from mammo.tracking.links import MOST, at, charts_page, compare_page
from mammo.tracking.note import NOTE, note
from mammo.tracking.sampler import sampled
from mammo.tracking.values import without_password

if TYPE_CHECKING:
    from mammo.tracking.tracked import TrackedRun

LOG = logging.getLogger("mammo")
GOING = "**Not finished:** it is at work, or its process was killed."


@contextmanager
def accompanied(
    run: "TrackedRun", step: str, settings: Mapping[str, Any], *, sample: bool
) -> Iterator[None]:
    """Say what `run` is made with, and what is to be done; `sample` the machine while it lasts."""
    describe(run)
    with noted(run, step, settings), sampled(run) if sample else nullcontext():
        yield


@contextmanager
def noted(
    run: "TrackedRun", step: str, settings: Mapping[str, Any], *, parent_id: str = ""
) -> Iterator[None]:
    """Let the note of a run tell how it is gone on with, and where it stopped if it does.

    A process that is killed outright leaves the first of the two.
    """
    more = {"parent_id": parent_id}
    run.tags({NOTE: _note(run, step, settings, {}, stopped=GOING, **more)})
    try:
        yield
    except BaseException as error:
        stopped = f"**{_how(error)}{run.progress}**"
        run.tags({NOTE: _note(run, step, settings, run.finite, stopped=stopped, **more)})
        raise


@contextmanager
def told(
    parent: Run, run: "TrackedRun", name: str, step: str, settings: Mapping[str, Any]
) -> Iterator[None]:
    """Count a child that a step opens by itself on its parent, and write its note."""
    with counted(parent, name, step) as child:
        child.run_id = run.id
        try:
            with noted(run, step, settings, parent_id=parent.id):
                yield
        finally:
            child.metrics = run.finite
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
    run.tags({NOTE: _note(run, step, settings, metrics, said=said)})
    known, place = [each.run_id for each in alike(_family(run))], run.tracking.experiment_id
    if len(known) > 1:
        address = run.tracking.address
        LOG.info("charts of the children:       %s", at(address, charts_page(place, run.id)))
        if len(known) <= MOST:
            LOG.info("the children side by side:    %s", at(address, compare_page(place, known)))


def _note(
    run: "TrackedRun",
    step: str,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
    *,
    stopped: str = "",
    parent_id: str = "",
    said: str = "",
) -> str:
    known_at = run.tracking.outbox.server_id
    return note(
        step,
        settings,
        usual(step),
        run.inputs,
        metrics,
        experiment_id=run.tracking.experiment_id,
        run_id=run.id,
        family=_family(run),
        stopped=stopped,
        parent_id=known_at(parent_id) if parent_id else "",
        said=said,
    )


def _family(run: "TrackedRun") -> list[Child]:
    """The children that ended; one that an outage kept waiting has an id of ours until then."""
    known_at = run.tracking.outbox.server_id
    return [replace(each, run_id=known_at(each.run_id)) for each in children(run.folder)]


def _how(error: BaseException) -> str:
    """How an error ends a run, in words."""
    match error:
        case Pruned():
            return f"Pruned: {error}"
        case Stopped():
            return f"Stopped by {error}"
    text = without_password(" ".join(reason(error).split()))[:1000]
    return f"Failed: {text}"


def usual(step: str) -> dict[str, Any]:
    """Default of every setting of `step`, those of the steps within it below their names."""
    from mammo.driver import COMMON, EVERYWHERE, defaults, step_module

    module = step_module(step)
    found = {**EVERYWHERE, **COMMON, **defaults(module)}
    nested = getattr(module, "NESTED", {})
    return found | {name: defaults(step_module(other)) for name, other in nested.items()}
