"""`mammo sync`: what processes could not send reaches the tracking server."""

from collections.abc import Sequence

from mammo.commands import call
from mammo.errors import TrackingError


def command(arguments: Sequence[str]) -> int:
    return call("sync", run, arguments)


def run(*, work_dir: str = "") -> int:
    """Send what killed processes, outages and offline=true left in the work folder's spool.

    Runs go to the server that they were made for. Says in a line for each what was sent; one whose
    process is still at work is skipped. Ends with an error where the server is away or refuses
    something: what is not sent stays, and the same command tries again.
    """
    from mammo.driver import work_folder
    from mammo.tracking.syncing import sync

    root = work_folder(work_dir) / "spool"
    left = []
    for outcome in sync(root):
        print(f"{outcome.run_id}: {outcome.said}", flush=True)
        left += [] if outcome.whole else [outcome.run_id]
    if left:
        raise TrackingError(
            f"{len(left)} runs are not wholly sent ({', '.join(left[:5])}); they stay in {root}, "
            "and mammo sync tries again"
        )
    return 0
