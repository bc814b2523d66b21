"""The schemas that the databases have, and those that this image's MLflow and Optuna want.

MLflow's server may bring its tables to its own schema when it starts, and with no dump there is no
way back. So it is not started before `make upgrade`, which dumps first.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Schema:
    """Tables of a program: Alembic's scripts make them, and note their revision."""

    package: str
    folder: str  # of the scripts, in the package
    table: str = "alembic_version"  # of the revision

    def held(self, connection: Any) -> str:
        """Revision of the database of a psycopg2 connection; empty where no table was made yet."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (f"public.{self.table}",))
            if not cursor.fetchone()[0]:
                return ""
            cursor.execute(f"SELECT version_num FROM {self.table}")
            found = cursor.fetchone()
        return str(found[0]) if found else ""

    def revisions(self) -> list[str]:
        """All that this image knows, the newest last.

        Read and not imported: MLflow's scripts bring half of MLflow along, seconds at each start.
        """
        (root,) = find_spec(self.package).submodule_search_locations  # type: ignore[union-attr,misc]
        after = {}
        for path in (Path(root) / self.folder).glob("*.py"):
            said = dict(re.findall(r"^(\w+) = [\"'](\w[^\"']*)[\"']", path.read_text(), re.M))
            if "revision" in said:
                after[said.get("down_revision", "")] = said["revision"]
        chain = [after[""]]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        return chain

    def wanted(self) -> str:
        """The newest revision."""
        return self.revisions()[-1]

    def is_behind(self, found: str) -> bool:
        """Whether revision `found` is one that this image would change."""
        return found in self.revisions()[:-1]

    def is_ahead(self, found: str) -> bool:
        """Whether a newer image has made `found`."""
        return found not in {"", *self.revisions()}

    def fault(self, connection: Any) -> str:
        """Why this image must not work on the database; empty where it may."""
        found = self.held(connection)
        if self.is_behind(found):
            return f"schema {found} is older than this image's {self.wanted()}: run make upgrade"
        if self.is_ahead(found):
            return f"schema {found} is newer than this image's {self.wanted()}: {NEWER}"
        return ""


NEWER = "check out the release that made it, or make rollback (tracking_server/KEEPING.md)"
RUNS = Schema("mlflow", "store/db_migrations/versions")
USERS = Schema("mlflow", "server/auth/db/migrations/versions", "alembic_version_auth")
STUDIES = Schema("optuna", "storages/_rdb/alembic/versions")
