"""Databases as pg_dump writes them, into a backup and back."""

import gzip
import shutil
import subprocess
from pathlib import Path
from typing import Any

from keeping import folder as backups
from keeping.frames import PIECE
from keeping.reach import Refused, Stack

# Without the COMMIT that follows a whole dump, nothing of it has happened. The tables become those
# of the database's owner, whatever role wrote the dump.
_EMPTY = b"""BEGIN;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
ALTER SCHEMA public OWNER TO pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC;
SELECT pg_get_userbyid(datdba) AS owner FROM pg_database WHERE datname = current_database() \\gset
SET ROLE :"owner";
"""


def dump(stack: Stack, names: list[str], folder: Path) -> dict[str, Any]:
    """Dump databases into `folder`; says of each what the manifest holds."""
    found = {}
    for name in names:
        # No owners: a restored stack has roles of its own.
        command = stack.database("pg_dump", "--no-owner", "--no-privileges", f"--dbname={name}")
        with stack.process(command, stdout=subprocess.PIPE) as process:
            path = folder / "databases" / f"{name}.sql.gz"
            found[name] = backups.write_dump(process.stdout, path)
    return found


def fill(stack: Stack, folder: Path, said: dict[str, Any], facts: dict[str, Any]) -> Any:
    """Put dumped databases in the place of those that are there; returns the facts afterwards.

    Each is one transaction: one that does not end leaves its database as it was. The rows of each
    table are compared.
    """
    own = facts["database"]
    into = {name: own if name == said["database"] else name for name in said["databases"]}
    for name, target in into.items():
        if target not in facts["databases"]:
            sql = "CREATE DATABASE " + '"{}"'.format(target.replace('"', '""'))
            with stack.process(_psql(stack, own, "--command", sql), stdout=subprocess.DEVNULL):
                pass
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        with stack.process(_psql(stack, target), **pipes) as process:
            process.stdin.write(_EMPTY)
            with gzip.open(folder / "databases" / f"{name}.sql.gz") as file:
                shutil.copyfileobj(file, process.stdin, PIECE)
            process.stdin.write(b"\nCOMMIT;\n")
    after = stack.facts()
    for name, target in into.items():
        for table, count in said["databases"][name]["rows"].items():
            found = after["rows"][target].get(table)
            if found != count:
                raise Refused(f"{target}: table {table} has {found} rows, the backup {count}")
    if after["revision"] != said["revision"]:
        raise Refused(f"the schema is {after['revision']!r}, the backup's {said['revision']!r}")
    return after


def _psql(stack: Stack, database: str, *words: str) -> list[str]:
    told = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={database}")
    return stack.database("psql", *told, *words)
