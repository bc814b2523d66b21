"""The one door to MLflow: runs, numbers, pictures, artifacts, inputs, lineage and the registry."""

from mammo.tracking.ending import close_failed, closing, unfinished_run
from mammo.tracking.ownership import Taken
from mammo.tracking.registry import Registry, withdrawn
from mammo.tracking.store import Tracking, connected, store_in_plain_words
from mammo.tracking.tracked import TrackedRun

__all__ = [
    "Registry",
    "Taken",
    "TrackedRun",
    "Tracking",
    "close_failed",
    "closing",
    "connected",
    "store_in_plain_words",
    "unfinished_run",
    "withdrawn",
]
