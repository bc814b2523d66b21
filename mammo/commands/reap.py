"""`mammo reap`: runs whose process is gone without a word are closed."""

from collections.abc import Sequence

from mammo.commands import call
from mammo.errors import ConfigError


def command(arguments: Sequence[str]) -> int:
    return call("reap", run, arguments)


def run(*, older: float = 10.0, dry_run: bool = False) -> int:
    """Close as KILLED the runs in state RUNNING whose last heartbeat is `older` minutes ago.

    A step writes a heartbeat every minute. Looks at all experiments; --dry_run true only tells.
    The same command as before still continues such a run.
    """
    if not older >= 3:  # nor nan
        raise ConfigError(f"older {older} is too little: hearts beat each minute; give 3 or more")
    from mammo.tracking import Taken, Tracking
    from mammo.tracking.ownership import silent_s

    with Tracking() as tracking:
        for found in tracking.running():
            minutes = silent_s(found) / 60
            if minutes < older:
                continue
            said = f"its heart was silent for {minutes:.0f} minutes"
            verb = "would be closed" if dry_run else "closed"
            try:
                if not dry_run:
                    tracking.set_status(found.info.run_id, "KILLED", reaped=said)
            except Taken:  # its process lives on this machine, cut off from the server
                verb = "skipped, for its process is still at work"
            print(f"{found.info.run_id} {found.info.run_name}: {verb}: {said}", flush=True)
    return 0
