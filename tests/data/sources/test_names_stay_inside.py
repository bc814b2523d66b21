"""What the records of a release are called is found nowhere outside of private/, in any adapter."""

import re
from pathlib import Path

import doors
import planted
import pytest
from releases import RELEASES

from mammo.data.sources import open_adapter

_TELLS = re.compile(r"(?=.*\d)(?!\d{1,7}$).{6,}")  # an id; the files 1.png and 000000.dcm are not


def names_of(folder: Path, adapter: str, task: str, options: dict[str, str]) -> set[str]:
    """Ids of patients, exams and images of the fake release, and the names of its files."""
    release = open_adapter(adapter).read(folder, task=task, options=options)
    said = {name for record in release.records for name in (record.patient, record.image)}
    said |= {record.exam for record in release.records}
    said |= {part for path in folder.rglob("*") for part in (path.stem, path.name)}
    return {name for name in said if _TELLS.fullmatch(name)}


@pytest.mark.parametrize("adapter", RELEASES)
def test_nothing_of_a_fake_release_is_told(
    adapter: str, tmp_path: Path, store: str, capfd: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    source = tmp_path_factory.mktemp("release")
    fake = RELEASES[adapter](source)
    task = fake.task or getattr(open_adapter(adapter), "OFFERS", ("label",))[0]
    names = names_of(source, adapter, task, dict(fake.options))
    assert names
    settings = {"dataset": adapter, "task": task, "source": source, "strict": False}
    settings |= {"image_size": "16", "val_fraction": 0, "test_fraction": 0, **fake.options}
    done = doors.here("preprocess", **settings)
    printed = capfd.readouterr()
    assert done.code == 0, done.err
    texts = {
        "stdout": done.out.encode() + printed.out.encode(),
        "stderr": done.err.encode() + printed.err.encode(),
    }
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file() and not path.is_relative_to(tmp_path / "home" / "private"):
            texts[str(path.relative_to(tmp_path))] = path.read_bytes()
    found = [
        (name, where)
        for where, content in texts.items()
        for layer in planted.layers(content)
        for name in names
        if re.search(rb"(?<![\w.])" + re.escape(name.encode()) + rb"(?!\w)", layer)
    ]
    assert not found
