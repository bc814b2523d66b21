"""A newer release: the databases are dumped, then brought to its schemas; and the way back."""

from pathlib import Path

from keeping import databases
from keeping import folder as backups
from keeping.copies import about, default_place, refuse_clients, verify, writing
from keeping.reach import Refused, Stack


def upgrade(stack: Stack) -> str:
    """Dump the databases, then upgrade those that are behind; says what was done."""
    facts = stack.facts()
    release = f"MLflow {facts['versions']['mlflow']}"
    if facts["ahead"]:
        raise Refused(f"the database {facts['ahead'][0]} is of a newer release than {release}")
    if not facts["behind"]:
        return f"the databases have the schemas of {release} already"
    refuse_clients(facts)
    place = _dump(stack, "-before-upgrade")
    back = f"the way back: the former server image, and rollback to {place}"
    try:
        with stack.process(stack.store("store", "upgrade")):
            pass
        left = stack.facts()["behind"]
        if left:
            raise Refused(f"the database {left[0]} is still behind")
    except Refused as error:
        raise Refused(f"{error}; {back}") from None
    return f"upgraded {', '.join(facts['behind'])} to {release}; {back}"


def rollback(stack: Stack, place: str) -> str:
    """Put a backup's databases in the place of those that are there, which are dumped first."""
    said = verify(place)
    refuse_clients(stack.facts())
    kept = _dump(stack, "-before-rollback")
    databases.fill(stack, Path(place), said, stack.facts())
    return f"the databases are those of {place}; what was there is in {kept}"


def _dump(stack: Stack, suffix: str) -> Path:
    """A backup of the databases alone."""
    place = default_place(suffix)
    with writing(place) as folder:
        facts = stack.facts()
        said = about(facts) | {"databases": databases.dump(stack, facts["databases"], folder)}
        backups.write_manifest(folder, said)
    return place
