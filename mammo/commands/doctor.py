"""`mammo doctor DATASET`: what is wrong with a dataset, as a page with pictures."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from mammo.commands import call, folder_of
from mammo.data.dataset import Dataset
from mammo.errors import ConfigError, DataError


def command(arguments: Sequence[str]) -> int:
    return call("doctor", run, arguments)


def run(dataset: str, *, output: str = "", against: str = "", seed: int = 0) -> int:
    """Examine DATASET, a folder or a run's reference, and write doctor.html and doctor.json.

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
