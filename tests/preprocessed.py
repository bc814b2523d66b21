"""The step preprocess in the test's own process, with its defaults."""

import inspect
from pathlib import Path
from typing import Any

from mammo.data.dataset import Dataset
from mammo.run import MemoryRun
from mammo.steps import preprocess


def preprocessed(work: Path, **settings: Any) -> MemoryRun:
    """Check and run the step with `settings` beside its defaults, tracked in memory."""
    parameters = inspect.signature(preprocess.run).parameters.values()
    given = {each.name: each.default for each in parameters if each.name != "tracked"} | settings
    preprocess.check(given)
    tracked = MemoryRun(work)
    preprocess.run(tracked, **given)
    return tracked


def dataset_of(tracked: MemoryRun) -> Dataset:
    return Dataset(tracked.uploaded["dataset"])
