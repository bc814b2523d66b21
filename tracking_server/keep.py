"""Keep the tracking server: back it up, restore it, upgrade it, clear away what no run needs.

    python keep.py backup [FOLDER]    both stores, while the server runs; default: backups/TIME
    python keep.py verify FOLDER      every digest of a backup
    python keep.py restore FOLDER     a backup into empty stores, the server not running
    python keep.py upgrade            dump the databases, then bring them to this image's schemas
    python keep.py rollback FOLDER    the databases as they were before an upgrade
    python keep.py gc [--days N] [--delete]
                                      what no run needs (see keeping/rubbish.py)

With --compose as the first word the stores are reached through `docker compose`; this machine needs
Python alone. Without it the environment is that of start.py, boto3, psycopg2 and mlflow are there,
and PostgreSQL's programs are on PATH or in the folder POSTGRES_PROGRAMS.
"""

import subprocess
import sys

from keeping import clearing, copies, stores, upgrades
from keeping.folder import Damaged
from keeping.frames import Broken
from keeping.reach import Refused, Stack


def main(words: list[str]) -> None:
    """Do what `words` ask; a user's mistake is one line and exit code 1."""
    stack = Stack(compose=words[:1] == ["--compose"])
    action, *rest = words[1:] if stack.compose else words or ["nothing"]
    match action, rest:
        case "backup", ([] | [_]):
            print(copies.backup(stack, *rest))
        case "verify", [place]:
            said = copies.verify(place)
            print(f"{place} of {said['made']} is whole: {len(said.get('objects', []))} objects")
        case "restore", [place]:
            print(copies.restore(stack, place))
        case "upgrade", []:
            print(upgrades.upgrade(stack))
        case "rollback", [place]:
            print(upgrades.rollback(stack, place))
        case "gc", _ if stack.compose:
            sys.exit(subprocess.run(stack.store("gc", *rest), check=False).returncode)
        case "gc", _:
            with stores.in_one_line():
                clearing.command(rest)
        case "store", [name] if name in stores.ACTIONS:
            with stores.in_one_line():
                stores.ACTIONS[name]()
        case _:
            sys.exit(f"keep.py: {' '.join(words)!r} is not understood\n\n{__doc__}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Refused, Damaged, Broken, OSError) as error:
        sys.exit(f"keep.py: {error}")
