"""`mammo lineage RUN`: what a run was made from, and what was made from it."""

from collections.abc import Sequence

from mammo.commands import call
from mammo.lineage import Graph


def command(arguments: Sequence[str]) -> int:
    return call("lineage", run, arguments)


def run(run: str) -> int:
    """Print the lineage of RUN, a run id or runs:/<id>/<path>."""
    from mammo.tracking import Tracking

    tracking = Tracking()
    run_id = run.removeprefix("runs:/").partition("/")[0]
    tags = tracking.get(run_id).data.tags
    run_id = tags.get("mammo.reused") or tags.get("mammo.continues") or run_id
    print("\n".join(Graph(tracking.nodes()).tree(run_id)))
    return 0
