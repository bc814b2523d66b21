"""`mammo rollback NAME`: the alias of a registered model goes back to the version before."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from mammo.commands import call
from mammo.errors import ConfigError, DataError


def command(arguments: Sequence[str]) -> int:
    return call("rollback", run, arguments)


def run(name: str, *, alias: str = "champion") -> int:
    """Exchange the versions of NAME that hold --alias and `previous`.

    Called again, it undoes itself. A version that was withdrawn is refused.
    """
    from mammo.driver import work_folder
    from mammo.promotion.verdict import previous_of
    from mammo.tracking import Registry, Tracking, withdrawn

    tracking = Tracking()
    registry, before = Registry(tracking, work_folder("")), previous_of(alias)
    now, then = registry.holder(name, alias), registry.holder(name, before)
    if now is None:
        raise ConfigError(
            f"no version of {name!r} holds {alias} at {tracking.address}; check the name and "
            "MLFLOW_TRACKING_URI"
        )
    if then is None or then.number == now.number:
        raise ConfigError(
            f"{now.uri} holds {alias} and no other version held it before; there is nothing to "
            "roll back to"
        )
    if patients := withdrawn(tracking, then.run_id, ""):
        raise DataError(f"{then.uri}, which held {alias}, was withdrawn with patient {patients}")
    registry.point(name, alias, then.number)
    registry.point(name, before, now.number)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    registry.tag(now, {"mammo.rolled_back": when})
    print(f"{alias} of {name}: version {now.number} before, version {then.number} now")
    print(json.dumps({"name": name, alias: then.number, before: now.number}), flush=True)
    return 0
