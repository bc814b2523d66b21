"""What every adapter owes: read from its fake release, whose builder it must have."""

import math
import random
import shutil
from pathlib import Path

import pytest
from goldens import expected, told
from releases import RELEASES
from releases_form import Fake

from mammo.data.prepare import Prepared, Recipe, prepare
from mammo.data.release import FLAGS, Record, Release
from mammo.data.sources import ADAPTERS, check_request, open_adapter
from mammo.errors import ConfigError, MammoError


def tasks(name: str, fake: Fake) -> tuple[str, ...]:
    return tuple(getattr(open_adapter(name), "OFFERS", ())) or tuple(fake.tasks)


def read(name: str, folder: Path, fake: Fake, task: str) -> Release:
    check_request(name, task, fake.options)
    return open_adapter(name).read(folder, task=task, options=fake.options)


def build(name: str, folder: Path) -> Fake:
    assert name in RELEASES, f"adapter {name} has no fake release; add one to tests/data/sources"
    folder.mkdir()
    return RELEASES[name](folder)


def rows(records: list[Record], folder: Path) -> list[dict[str, str]]:
    """`records` as text, with all that says where lesions are."""
    return [
        {
            **row,
            "pixel_mm": "" if math.isnan(record.pixel_mm) else f"{record.pixel_mm:g}",
            "masks": ";".join(path.relative_to(folder).as_posix() for path in record.masks),
            "circles": ";".join(numbers(circle) for circle in record.circles),
            "polygons": ";".join(",".join(map(numbers, each)) for each in record.polygons),
        }
        for row, record in zip(told(records, folder), records, strict=True)
    ]


def numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_task_that_is_offered_can_be_read(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    fake = build(name, folder)
    assert tasks(name, fake)
    for task in tasks(name, fake):
        release = read(name, folder, fake, task)
        assert release.records, f"the fake release has no image for {task}"
        assert release.rejected == []
        assert release.classes.task == task
        assert len({record.image for record in release.records}) == len(release.records)
        for record in release.records:
            assert record.label in release.classes.names
            assert record.patient
            assert record.image
            assert record.paths
            assert all(path.is_file() for path in (*record.paths, *record.masks))
            assert record.laterality in ("", "L", "R")
            assert record.view in ("", "CC", "MLO")
            assert record.split in ("", "train", "val", "test")
            assert set(record.flags) <= set(FLAGS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_order_of_a_release_is_not_that_of_its_files(name: str, tmp_path: Path) -> None:
    """Read twice, and from a copy whose files were written in the opposite order: the same."""
    folder, copy = tmp_path / "release", tmp_path / "copy"
    fake = build(name, folder)
    for path in sorted((path for path in folder.rglob("*") if path.is_file()), reverse=True):
        (copy / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy / path.relative_to(folder))
    task = tasks(name, fake)[0]
    first = rows(read(name, folder, fake, task).records, folder)
    assert rows(read(name, folder, fake, task).records, folder) == first
    assert rows(read(name, copy, fake, task).records, copy) == first


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_image_can_be_prepared_and_its_lesions_with_it(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    fake = build(name, folder)
    adapter = open_adapter(name)
    # the fakes of adapters without a crop of their own need not show a breast
    crop, frames = getattr(adapter, "CROP", "none"), getattr(adapter, "FRAMES", "refuse")
    recipe = Recipe(size=(32, 24), crop=crop, frames=frames)
    release = read(name, folder, fake, fake.task or tasks(name, fake)[0])
    for record in release.records:
        prepared = prepare(record, recipe)
        assert isinstance(prepared, Prepared), prepared
        assert prepared.image.shape == (len(record.paths), 32, 24)
        marked = record.masks or record.circles or record.polygons or record.boxes
        assert (prepared.mask is not None) == bool(marked)


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_a_run_may_say_names_nobody(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    fake = build(name, folder)
    release = read(name, folder, fake, tasks(name, fake)[0])
    said = " ".join([*release.notes.values(), *release.left_out])
    for record in release.records:
        for secret in (record.patient, record.image, record.paths[0].stem):
            assert len(secret) < 4 or secret not in said


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_harmed_table_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    fake = build(name, folder)
    tables = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in TABLES]
    for seed in range(30 if tables else 0):
        chance = random.Random(seed)
        table = chance.choice(tables)
        whole = table.read_bytes()
        table.write_bytes(chance.choice(HARMS)(whole, chance))
        try:
            read(name, folder, fake, tasks(name, fake)[0])
        except MammoError as error:
            assert "\n" not in str(error)
        table.write_bytes(whole)


def cut(whole: bytes, chance: random.Random) -> bytes:
    return whole[: chance.randrange(len(whole) + 1)]


def insert(whole: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(whole) + 1)
    return whole[:place] + chance.randbytes(8) + whole[place:]


def misspell(whole: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(whole) + 1)
    word = chance.choice([b"nan", b"-1", b"1e999", b"9" * 400, b"x", b";", b",", b'"', b"../../a"])
    return whole[:place] + word + whole[place + chance.randrange(6) :]


def repeat_a_line(whole: bytes, chance: random.Random) -> bytes:
    lines = whole.split(b"\n")
    lines.insert(0, chance.choice(lines))
    return b"\n".join(lines)


def mix_lines(whole: bytes, chance: random.Random) -> bytes:
    lines = whole.split(b"\n")
    chance.shuffle(lines)
    return b"\n".join(lines)


TABLES = (".csv", ".ics", ".json", ".overlay", ".txt", ".xlsx", ".xml")
HARMS = (cut, insert, misspell, repeat_a_line, mix_lines)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_task_or_an_option_that_the_adapter_lacks_is_refused(name: str) -> None:
    if getattr(open_adapter(name), "OFFERS", ()):
        with pytest.raises(ConfigError, match="has no labels in"):
            check_request(name, "weather", {})
    if getattr(open_adapter(name), "OPTIONS", None) is not None:
        with pytest.raises(ConfigError, match="colour is not an option of"):
            check_request(name, getattr(open_adapter(name), "OFFERS", ("view",))[0], {"colour": ""})


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in Path(__file__).parent.glob("golden/*"))
)
def test_the_golden_manifest(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    fake = build(name, folder)
    found = rows(read(name, folder, fake, fake.task or tasks(name, fake)[0]).records, folder)
    golden = expected(name)
    assert [{column: row[column] for column in golden[0]} for row in found] == golden
