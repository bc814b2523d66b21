"""How a run ends: its true status and reason, and whether it can be continued."""

import json
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mammo.errors import MammoError
from mammo.run import FailedElsewhere, Pruned, Stopped
from mammo.tracking.reading import UnknownRun
from mammo.tracking.server import ServerAway
from mammo.tracking.store import Tracking


@contextmanager
def closing(tracking: Tracking, run_id: str, *, last: bool = False) -> Iterator[None]:
    """Give the run its true status, however the block ends.

    The `last` run of a process is finished only when all runs' numbers and files are sent, or are
    left in the spool; TrackingError where the server refused some.
    """
    try:
        yield
        if last:
            tracking.settle()
    except BaseException as error:
        close_failed(tracking, run_id, error)
        raise
    tracking.set_status(run_id, "FINISHED")


def close_failed(tracking: Tracking, run_id: str, error: BaseException) -> None:
    """Give a run that `error` ended its status and its reason."""
    match error:
        case Pruned():
            tracking.set_status(run_id, "KILLED", pruned=str(error) or "pruned")
        case Stopped():
            tracking.set_status(run_id, "KILLED", stopped=str(error))
        case _:
            tracking.set_status(run_id, "FAILED", error=reason(error))


def reason(error: BaseException) -> str:
    """Why a run failed, as its readers may know it."""
    return str(error) if isinstance(error, MammoError | FailedElsewhere) else _place(error)


def _place(error: BaseException) -> str:
    """Kind and place of a bug; its message may quote a file's name, and stays on the terminal."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if f"{os.sep}mammo{os.sep}" in each.filename]
    last = (ours or frames)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    return f"{type(error).__name__} in {where}; the traceback is on the terminal"


def unfinished_run(tracking: Tracking, folder: Path, *, any_status: bool = False) -> str:
    """Id of the run whose state lies in `folder`, empty when there is none to continue."""
    try:
        saved = json.loads((folder / "run.json").read_text())
        run_id = str(saved["run_id"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""
    if saved.get("tracking_uri") != tracking.address:
        return ""
    try:
        run = tracking.get(run_id)
    except ServerAway:
        return run_id  # its state is here, and the server is told later
    except UnknownRun:
        return ""
    if run.info.lifecycle_stage == "deleted":
        return ""
    return "" if run.info.status == "FINISHED" and not any_status else str(run.info.run_id)
