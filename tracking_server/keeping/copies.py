"""Both stores into a folder, and from the folder into empty stores."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keeping import databases, objects
from keeping import folder as backups
from keeping.folder import Damaged
from keeping.reach import Refused, Stack
from keeping.stores import fresh

BACKUPS = Path("backups")


def backup(stack: Stack, place: str = "") -> str:
    """Copy the databases and then the objects; says what the backup holds.

    What a database names has been uploaded before, and artifacts are not changed: so the objects of
    a later moment hold all that the earlier databases name.
    """
    target = Path(place) if place else default_place()
    with writing(target) as folder:
        facts = stack.facts()
        said = about(facts) | {"databases": databases.dump(stack, facts["databases"], folder)}
        found, unreadable = objects.fetch(stack, folder)
        backups.write_manifest(folder, {**said, "objects": found, "unreadable": unreadable})
    if unreadable:  # the rest is kept: a backup without one object is better than none
        raise Refused(
            f"{target} lacks {len(unreadable)} objects that the store cannot read: "
            f"{'; '.join(unreadable[:5])}"
        )
    rows = sum(sum(each["rows"].values()) for each in said["databases"].values())
    size = sum(each["bytes"] for each in found)
    return f"{target}: {rows} rows, {len(found)} objects of {size / 1e6:.1f} MB"


def verify(place: str) -> dict[str, Any]:
    """The manifest of a backup in which every digest is right; else Damaged."""
    folder = Path(place)
    said = backups.read_manifest(folder)
    faults = backups.faults(folder, said)
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise Damaged(f"{folder} is damaged: {faults[0]}{more}")
    return said


def restore(stack: Stack, place: str) -> str:
    """Check a backup, then fill empty stores from it: the objects first, then what names them."""
    said, folder = verify(place), Path(place)
    if "objects" not in said:
        raise Refused(f"{folder} holds the databases alone; it is for rollback")
    facts = stack.facts()
    refuse_clients(facts)
    full = [f"the database {name}" for name, rows in facts["rows"].items() if not fresh(rows)]
    full += ["the bucket"] if facts["objects"] else []
    if full:
        raise Refused(f"{full[0]} is not empty; a backup is restored into a new stack alone")
    objects.bring(stack, folder, said["objects"])
    filled = databases.fill(stack, folder, said, facts)
    old = "; an older release made it: run make upgrade" if filled["behind"] else ""
    return f"restored {len(said['databases'])} databases, {len(said['objects'])} objects{old}"


def about(facts: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says beside its contents."""
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"made": made, **{key: facts[key] for key in ("versions", "database", "revision")}}


def refuse_clients(facts: dict[str, Any]) -> None:
    """Refused while something else is connected to the databases."""
    if facts["clients"]:
        raise Refused(
            f"{facts['clients']} connections to the databases are open; stop the server first"
        )


def default_place(suffix: str = "") -> Path:
    """Where a backup of this moment goes."""
    return BACKUPS / (time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime()) + suffix)


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """A folder for its owner alone, which gets its name when the block has ended well."""
    if target.exists():
        raise Refused(f"{target} exists already; a backup overwrites nothing")
    partial = target.with_name(target.name + ".partial")
    before = os.umask(0o077)
    try:
        partial.mkdir(parents=True)
    except FileExistsError:
        raise Refused(f"{partial} is there: another backup runs, or one was cut short") from None
    else:
        try:
            yield partial
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial)
            raise
    finally:
        os.umask(before)
