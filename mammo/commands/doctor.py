"""`mammo doctor`: what is wrong with the tracking; with a DATASET, with that, as a page."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from mammo.commands import call, folder_of
from mammo.data.dataset import Dataset
from mammo.errors import ConfigError, DataError, TrackingError


def command(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0].startswith(("--storage", "--work_dir")):
        return call("doctor", tracking, arguments)
    return call("doctor", run, arguments)


def tracking(*, storage: str = "", work_dir: str = "") -> int:
    """Look at what a step needs of the tracking server and of this machine, a line each.

    --storage is the database of Optuna's studies, as tune takes it. The last line of stdout is
    JSON. The exit code is 0, or 2 when something is wrong.
    """
    from mammo.driver import work_folder
    from mammo.tracking.checkup import look

    wrong = []
    count = 0
    for check in look(storage, work_folder(work_dir)):
        mark, remedy = ("wrong", f"; {check.remedy}") if check.remedy else ("ok", "")
        print(f"{mark:7}{check.name}: {check.said}{remedy}", flush=True)
        count += 1
        wrong += [check.name] if check.remedy else []
    print(json.dumps({"checks": count, "wrong": wrong}), flush=True)
    if wrong:
        raise TrackingError(f"wrong: {', '.join(wrong)}; each line above says what helps")
    return 0


def run(dataset: str, *, output: str = "", against: str = "", seed: int = 0) -> int:
    """Examine DATASET, a folder or a run's reference, and write doctor.html and doctor.json.

    Without a DATASET it looks at the tracking server and this machine (--storage, --work_dir).

    They go to --output (default: doctor/<digest> in the work folder); --against compares with
    another dataset. The last line of stdout is JSON. The exit code is 0, or 2 when a finding is
    fatal.
    """
    from mammo.doctor.examination import examine
    from mammo.doctor.page import page
    from mammo.driver import work_folder

    data = Dataset(folder_of(dataset, "dataset", "dataset"))
    other = Dataset(folder_of(against, "dataset", "against")) if against else None
    place = Path(output).expanduser() if output else work_folder("") / "doctor" / data.digest
    there = next(each for each in (place, *place.absolute().parents) if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):  # told before minutes of looking
        raise ConfigError(
            f"output {place} cannot be made: {there} is no folder to write to; give a folder"
        )
    found = examine(data, other, seed=seed)
    place.mkdir(parents=True, exist_ok=True)
    (place / "doctor.html").write_text(page(found))
    (place / "doctor.json").write_text(json.dumps(found.to_json(), indent=1) + "\n")
    for finding in found.findings:
        print(f"{finding.severity:8}{finding.name}: {finding.text}")
    told = {"findings": len(found.findings), "fatal": found.fatal}
    print(json.dumps({**told, "page": str(place / "doctor.html")}), flush=True)
    worst = [each for each in found.findings if each.severity == "fatal"]
    if worst:
        raise DataError(
            f"dataset {data.name} is not fit for use: {worst[0].name}, {worst[0].text} "
            f"({len(worst)} fatal findings; the page shows all)"
        )
    return 0
