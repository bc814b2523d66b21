"""`keep.py gc`: say what no run needs, and with --delete delete it; runs beside the stores."""

import argparse
import json
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

from schema import RUNS
from stores import runs_database

from keeping import rubbish, stores
from keeping.reach import Refused
from keeping.rubbish import Rubbish

DAYS = 30.0
DAY_MS = 86_400_000


def command(words: list[str]) -> None:
    """Find rubbish and print a line for each; the last line is a JSON object."""
    parser = argparse.ArgumentParser(prog="keep.py gc", allow_abbrev=False)
    parser.add_argument("--days", type=float, default=DAYS, help="how long deleted things stay")
    parser.add_argument("--delete", action="store_true", help="delete what is named")
    given = parser.parse_args(words)
    if not given.days >= 0:
        raise Refused(f"--days {given.days} is no number of days from 0 on")
    if stores.revision() != RUNS.wanted():
        raise Refused("the database has not the schema of this MLflow; upgrade it first")
    before_ms = _before(given.days)
    client = stores.objects()
    # The bucket first: a run is in the database before it has an object.
    there = [(each["Key"], each["Size"]) for each in stores.listed(client)]
    books = rubbish.read_books()
    if there and not books.runs:
        raise Refused("the database knows no run, but there are objects; is it the right one?")
    found = rubbish.find(there, books, before_ms)
    old = rubbish.old_versions(versions(client), before_ms)
    verb = "deleted" if given.delete else "would delete"
    for each in found:
        if given.delete:
            delete(client, each)
        print(f"{verb} {each}", flush=True)
    if given.delete:  # again: with --days 0 what was just deleted goes for good
        old = rubbish.old_versions(versions(client), _before(given.days))
        for key, version, _ in old:
            client.delete_object(Bucket=stores.setting("S3_BUCKET"), Key=key, VersionId=version)
    print(f"{verb} {len(old)} old versions, {sum(size for *_, size in old)} bytes")
    for line in rubbish.kept(books, before_ms):
        print(f"kept {line}")
    said = {
        "runs": sum(each.kind == "run" for each in found),
        "models": sum(each.kind == "model" for each in found),
        "objects": sum(len(each.keys) for each in found),
        "bytes": sum(each.bytes for each in found),
        "old_versions": len(old),
        "deleted": given.delete,
    }
    print(json.dumps(said))


def delete(client: Any, each: Rubbish) -> None:
    """Delete the objects and then the row, so that what is cut short is found again.

    One object a call: the call for many needs a checksum that boto3 no longer sends and older
    stores insist on.
    """
    for key in each.keys:
        client.delete_object(Bucket=stores.setting("S3_BUCKET"), Key=key)
    if each.row:
        store = _tracking_store()
        (store._hard_delete_run if each.kind == "run" else store._hard_delete_logged_model)(each.id)


def versions(client: Any) -> Iterator[dict[str, Any]]:
    """Versions and deletion marks of the bucket, those of a key together, newest first."""
    pages = client.get_paginator("list_object_versions")
    for page in pages.paginate(Bucket=stores.setting("S3_BUCKET")):
        entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        yield from sorted(entries, key=_newest_first)


@cache
def _tracking_store() -> Any:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(runs_database().uri, "mlflow-artifacts:/")


def _before(days: float) -> int:
    return int(time.time() * 1000 - days * DAY_MS)


def _newest_first(each: dict[str, Any]) -> tuple[str, bool, float]:
    return (each["Key"], not each["IsLatest"], -each["LastModified"].timestamp())
