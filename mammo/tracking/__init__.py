"""The one door to MLflow: runs, numbers, pictures, artifacts, inputs, lineage and the registry."""

from mammo.tracking.ending import close_failed, closing, unfinished_run
from mammo.tracking.family import counted, recount
from mammo.tracking.ownership import Taken
from mammo.tracking.registry import Registry, withdrawn
from mammo.tracking.server import preload
from mammo.tracking.store import Tracking, connected, store_in_plain_words
from mammo.tracking.telling import accompanied, conclude
from mammo.tracking.tracked import Branch, Share, TrackedRun

__all__ = [
    "Branch",
    "Registry",
    "Share",
    "Taken",
    "TrackedRun",
    "Tracking",
    "accompanied",
    "close_failed",
    "closing",
    "conclude",
    "connected",
    "counted",
    "preload",
    "recount",
    "store_in_plain_words",
    "unfinished_run",
    "withdrawn",
]
