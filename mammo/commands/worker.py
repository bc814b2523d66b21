"""`mammo worker --study NAME`: takes trials of a search that goes on, wherever it is started."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from mammo import driver
from mammo.commands import call
from mammo.errors import ConfigError
from mammo.search.queue import worker_id
from mammo.search.start import Start
from mammo.search.storage import (
    default_storage,
    given_storage,
    in_plain_words,
    open_storage,
)
from mammo.search.study import join_study
from mammo.search.trial import TrialProcess
from mammo.search.worker import Worker

LOG = logging.getLogger("mammo")


def command(arguments: Sequence[str]) -> int:
    return call("worker", worker, arguments)


def worker(*, study: str = "", storage: str = "", work_dir: str = "", trials: int = 0) -> int:
    """Take trials of the search STUDY until none waits, or --trials of them have ended.

    The search was begun by mammo tune, with any launcher; all else stands in its study. --storage
    is the one it was given, by default MAMMO_STORAGE (which no list of processes shows), else the
    file in the work folder. The work folder of the search has to be there, at the same path.
    """
    if not study:
        raise ConfigError("study is empty; give the study_name of the search, see mammo status")
    if trials < 0:
        raise ConfigError(f"trials {trials} cannot be; give a number, or 0 for as many as wait")
    kept = open_storage(address_of(storage, work_dir))
    with in_plain_words(study):
        found, plan = join_study(study, kept, worker=worker_id())
        start = Start.read(found)
        _join_run(start)
        done = Worker(found, plan, start, TrialProcess(), most=trials).work()
    LOG.info("worker: %d trials of study %s ended here", done, study)
    return 0


def address_of(storage: str, work_dir: str) -> str:
    """The storage that was given, or the usual one."""
    return given_storage(storage) or default_storage(driver.work_folder(work_dir))


def _join_run(start: Start) -> None:
    """Track where the search does; an address in the environment goes first."""
    try:
        said = json.loads((Path(start.folder) / "run.json").read_text())
    except (OSError, ValueError):
        raise ConfigError(
            f"{start.folder}, where the search keeps its state, cannot be read; a worker needs the "
            "work folder of the search at the same path"
        ) from None
    os.environ.setdefault("MLFLOW_TRACKING_URI", said["tracking_uri"])
    if "MLFLOW_EXPERIMENT_NAME" not in os.environ and not start.offline:
        from mammo.tracking import Tracking

        with Tracking(Path(start.work)) as tracking:
            place = tracking.get(start.run_id).info.experiment_id
        os.environ.setdefault("MLFLOW_EXPERIMENT_ID", place)
