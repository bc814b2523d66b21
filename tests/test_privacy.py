"""No identifier of a release leaves preprocess: planted everywhere, searched for everywhere."""

import base64
import csv
import errno
import gzip
import os
import signal
import stat
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import doors
import numpy as np
import pandas as pd
import planted
import pytest
from planted import STEM, mark

pytestmark = pytest.mark.doors

SMALL = {"image_size": "32"}
HALVES = {"val_fraction": 0.25, "test_fraction": 0.25}
PATIENTS = 12


@pytest.fixture
def home(tmp_path: Path, store: str) -> Path:
    """The work folder of commands that track in the test's own SQLite store."""
    return tmp_path / "home"


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a release, outside of what is searched."""
    return tmp_path_factory.mktemp("release")


@pytest.fixture
def nothing_told(
    tmp_path: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """Fails when an identifier stands anywhere but in private/, or was printed."""

    def check(*outcomes: doors.Outcome) -> None:
        printed = capfd.readouterr()
        texts = [printed.out, printed.err]
        texts += [text for outcome in outcomes for text in (outcome.out, outcome.err)]
        assert planted.leaks(tmp_path, *texts, spare=home / "private") == []
        # what was searched is where runs are kept
        assert (tmp_path / "mlflow.db").stat().st_size > 100_000

    return check


def names_kept(home: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((home / "private").glob("*.csv")))


# ---- the search itself


@pytest.mark.parametrize(
    "content",
    [
        mark("x").encode(),
        mark("x").lower().encode(),
        mark("x").upper().encode(),
        mark("x").encode("utf-16-le"),
        mark("x").encode("utf-16-be"),
        mark("x").encode().hex().encode(),
        mark("x").encode().hex().upper().encode(),
        *(base64.b64encode(b"abc"[:before] + mark("x").encode() + b"yz") for before in range(3)),
        "".join(f"%{each:02X}" for each in mark("x").encode()).encode(),
        gzip.compress(mark("x").encode(), mtime=0),
        gzip.compress(gzip.compress(mark("x").encode(), mtime=0), mtime=0),
        f"taken {planted.TAKEN} at noon".encode(),
        b"born 1937-11-03",
        f"uid {planted.UID_ROOT}.17".encode(),
    ],
)
def test_the_search_finds_an_identifier_in_every_form(content: bytes) -> None:
    assert planted.identifiers(b"before " * 10 + content if content[0] != 0x1F else content)


@pytest.mark.parametrize("kind", [planted.dicom, planted.png, planted.jpeg, planted.tiff,
                                  planted.pgm, planted.nifti])  # fmt: skip
def test_the_search_finds_what_is_planted(tmp_path: Path, kind: Callable[..., Path]) -> None:
    assert planted.leaks(tmp_path) == []
    kind(tmp_path / f"x.{'nii.gz' if kind is planted.nifti else kind.__name__}")
    assert planted.leaks(tmp_path) != []


def test_the_search_looks_into_tables_pictures_and_archives(tmp_path: Path) -> None:
    pd.DataFrame({"a": [mark("cell")] * 2000}).to_parquet(tmp_path / "t.parquet")
    planted.png(tmp_path / "in.png")
    page = base64.b64encode((tmp_path / "in.png").read_bytes())
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("page.html", b"<img src='data:image/png;base64," + page + b"'>")
    for name in ("t.parquet", "in.png", "z.zip"):
        found = planted.leaks(tmp_path)
        assert any(each.startswith(name) for each in found), name
    (tmp_path / "in.png").unlink()
    (tmp_path / mark("folder")).mkdir()
    assert any(each.startswith("name of") for each in planted.leaks(tmp_path))


# ---- releases


def dicom_folder(source: Path) -> dict[str, Any]:
    """Classes of DICOM files below folders and under names that identify; grouped by PatientID."""
    for number in range(PATIENTS):
        kind = ("benign", "malignant")[number % 2]
        for side, wall in (("L", "left"), ("R", "right")):
            planted.dicom(
                source / kind / mark(f"dir{number}") / f"{mark('file')}{number}{side}.dcm",
                planted.half_breast(wall=wall, level=1500 + 40 * number),
                patient=mark(f"p{number}"),
                ImageLaterality=side,
            )
    return {"dataset": "folder"}


def picture_folder(source: Path) -> dict[str, Any]:
    """Pictures of five kinds, the patient in the path."""
    kinds = {"png": planted.png, "jpg": planted.jpeg, "tif": planted.tiff, "pgm": planted.pgm}
    for number in range(PATIENTS):
        kind = ("benign", "malignant")[number % 2]
        suffix = tuple(kinds)[number // 2 % 4]
        folder = source / kind / mark(f"pat{number}")
        kinds[suffix](folder / f"{mark('file')}.{suffix}", number)
    pattern = "([^/]+)/[^/]+$"
    return {"dataset": "folder", "task": "label", "patient_pattern": pattern, "crop": "none"}


def volume_folder(source: Path) -> dict[str, Any]:
    """NIfTI files as some pipelines leave them: a folder for each sample."""
    for number in range(PATIENTS):
        folder = source / "original" / ("benign", "malignant")[number % 2] / mark(f"s{number}")
        planted.nifti(folder / f"{mark('slice')}.nii.gz", number)
    return {"dataset": "folder", "crop": "none"}


COLUMNS = ("picture", "patient_id", "full_name", "cancer", "side", "part", "notes", "visit", "age")
CSV = {
    "dataset": "csv",
    "path_column": "picture",
    "patient_column": "patient_id",
    "label_column": "cancer",
    "laterality_column": "side",
    "class_map": "malignant=1,benign=0",
    "keep_columns": "age",
    "crop": "none",
}


def table(source: Path) -> dict[str, Any]:
    """PNG files with a table that names everybody."""
    rows = []
    for number in range(PATIENTS):
        path = planted.png(source / mark("pictures") / f"{mark('png')}{number}.png", number)
        rows.append([str(path.relative_to(source)), mark(f"p{number}"), f"{mark('n')}, Jane",
                     str(number % 2), "L", "train", f"met Dr {mark('dr')}", "1969-10-19",
                     str(50 + number)])  # fmt: skip
    write_table(source, rows)
    return dict(CSV)


def write_table(source: Path, rows: list[list[str]], name: str = "") -> None:
    with (source / (name or f"{mark('table')}.csv")).open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def cbis(source: Path) -> dict[str, Any]:
    """CBIS-DDSM's own tables and headers, which name patients in every cell."""
    rows = []
    for number in range(PATIENTS):
        patient = f"P_{71937 + number:05d}"
        for view in ("CC", "MLO"):
            name = f"Mass-Training_{patient}_LEFT_{view}"
            planted.dicom(
                source / name / mark("study") / f"{mark('f')}{number}{view}.dcm",
                planted.half_breast(level=1500 + 40 * number + len(view)),
                patient=name,
                SeriesDescription="full mammogram images",
            )
            rows.append({
                "patient_id": patient, "breast_density": "2", "left or right breast": "LEFT",
                "image view": view, "abnormality id": "1", "abnormality type": "mass",
                "mass shape": mark("shape"), "mass margins": mark("margin"), "assessment": "4",
                "pathology": ("BENIGN", "MALIGNANT")[number % 2], "subtlety": "4",
                "image file path": f"{name}/{mark('path')}/000000.dcm",
                "cropped image file path": mark("crop"), "ROI mask file path": mark("roi"),
            })  # fmt: skip
    pd.DataFrame(rows).to_csv(source / "mass_case_description_train_set.csv", index=False)
    return {"dataset": "cbis_ddsm"}


RELEASES = (dicom_folder, picture_folder, volume_folder, table, cbis)


@pytest.mark.parametrize("release", RELEASES, ids=lambda each: each.__name__)
def test_no_identifier_leaves_preprocess(
    release: Callable[[Path], dict[str, Any]],
    source: Path,
    home: Path,
    nothing_told: Callable[..., None],
) -> None:
    settings = release(source)
    assert planted.leaks(source)
    done = doors.here("preprocess", source=source, **settings, **SMALL, **HALVES)
    assert done.metrics["patients"] == PATIENTS
    nothing_told(done)
    # they are where their owner can look them up
    assert ("P_71937" if release is cbis else mark("")) in names_kept(home)


def test_the_maker_may_be_known_and_the_device_may_not(source: Path, home: Path) -> None:
    done = doors.here("preprocess", source=source, **dicom_folder(source), **SMALL, **HALVES)
    dataset = next((home / "datasets").iterdir())
    manifest = pd.read_parquet(dataset / "manifest.parquet")
    assert set(manifest["vendor"]) == {"Maker"}
    assert done.code == 0
    assert mark("serial") not in manifest.to_csv()


# ---- rejected files


def spoilt(source: Path) -> dict[str, Any]:
    """The folder of DICOM files with some more that cannot be used, each for another reason."""
    settings = dicom_folder(source)
    place = source / "benign" / mark("bad")

    def bad(name: str, **tags: Any) -> Path:
        return planted.dicom(place / f"{mark(name)}.dcm", patient=mark(name), **tags)

    whole = bad("cut").read_bytes()
    (place / f"{mark('cut')}.dcm").write_bytes(whole[:-5000])
    (place / f"{mark('head')}.dcm").write_bytes(whole[:900])
    (place / f"{mark('empty')}.dcm").write_bytes(b"")
    (place / f"{mark('text')}.dcm").write_text(f"a letter about {mark('letter')}")
    bad("raw", PresentationIntentType="FOR PROCESSING")
    bad("colour", PhotometricInterpretation=mark("col").upper())
    bad("intent", PresentationIntentType=mark("why").upper())
    bad("polarity", PresentationLUTShape=mark("lut").upper())
    bad("voi", VOILUTFunction=mark("voi").upper(), WindowCenter=100, WindowWidth=50)
    bad("side", ImageLaterality=mark("l").upper(), ViewPosition=mark("v").upper())
    bad("front", PatientOrientation=[mark("a").upper(), mark("b").upper()])
    bad("age", PatientAge="QZVX")
    bad("kind", ImageType=[mark("t1").upper(), mark("t2").upper()])
    bad("coil", BodyPartExamined=mark("bo").upper(), ImplantPresent=mark("i").upper())
    strange = bad("syntax").read_bytes()
    (place / f"{mark('syntax')}.dcm").write_bytes(
        strange.replace(b"1.2.840.10008.1.2.1\0", planted.UID_ROOT.encode().ljust(20, b"\0"))
    )
    return settings


def test_files_that_cannot_be_used_are_named_in_private_alone(
    source: Path, home: Path, nothing_told: Callable[..., None]
) -> None:
    settings = spoilt(source)
    done = doors.here("preprocess", source=source, strict=False, **settings, **SMALL, **HALVES)
    assert done.metrics["rejected"] >= 6
    nothing_told(done)
    listed = next((home / "private").glob("rejected-*.csv")).read_text()
    for name in ("cut", "head", "empty", "text", "raw", "colour"):
        assert f"{mark(name)}.dcm" in listed


@pytest.mark.parametrize(
    "name", ["cut", "head", "empty", "text", "raw", "colour", "voi", "syntax", "age", "side"]
)
def test_the_one_file_that_stops_the_step_is_not_named(
    name: str, source: Path, tmp_path_factory: pytest.TempPathFactory, home: Path,
    nothing_told: Callable[..., None],
) -> None:  # fmt: skip
    whole = tmp_path_factory.mktemp("whole")
    settings = dicom_folder(source)
    spoilt(whole)
    bad = whole / "benign" / mark("bad") / f"{mark(name)}.dcm"
    (source / "benign" / mark("bad")).mkdir()
    bad.rename(source / "benign" / mark("bad") / bad.name)
    done = doors.here("preprocess", source=source, **settings, **SMALL, **HALVES)
    assert done.code in (0, 2)
    assert "Traceback" not in done.err
    nothing_told(done)


# ---- mistakes in a table, each of which stops the step with one line


def rows_of(source: Path) -> list[list[str]]:
    with next(source.glob("*.csv")).open(newline="") as file:
        return list(csv.reader(file))[1:]


def _set(column: str, value: str, row: int = 3) -> Callable[[Path], dict[str, Any]]:
    def change(source: Path) -> dict[str, Any]:
        rows = rows_of(source)
        rows[row][COLUMNS.index(column)] = value
        write_table(source, rows)
        return {}

    return change


def _headless(source: Path) -> dict[str, Any]:
    path = next(source.glob("*.csv"))
    path.write_text(path.read_text().split("\n", 1)[1])
    return {}


def _recoded(encoding: str) -> Callable[[Path], dict[str, Any]]:
    def change(source: Path) -> dict[str, Any]:
        path = next(source.glob("*.csv"))
        path.write_bytes(path.read_text().replace("Jane", "Jané").encode(encoding))
        return {}

    return change


def _torn(source: Path) -> dict[str, Any]:
    rows = rows_of(source)
    rows[1][1], rows[1][5] = rows[0][1], "test"
    write_table(source, rows)
    return {"split_column": "part"}


def _twice(source: Path) -> dict[str, Any]:
    rows = rows_of(source)
    write_table(source, [*rows, rows[0]])
    return {}


def _second_table(source: Path) -> dict[str, Any]:
    write_table(source, rows_of(source), f"{mark('second')}.csv")
    return {}


def _semicolons(source: Path) -> dict[str, Any]:
    path = next(source.glob("*.csv"))
    path.write_text(path.read_text().replace(",", ";"))
    return {}


def _long_row(source: Path) -> dict[str, Any]:
    write_table(source, [*rows_of(source), [mark("more")] * 30])
    return {}


def _quote(source: Path) -> dict[str, Any]:
    path = next(source.glob("*.csv"))
    path.write_text(path.read_text() + f'"{mark("open")}, never closed\n')
    return {}


def _nul(source: Path) -> dict[str, Any]:
    path = next(source.glob("*.csv"))
    path.write_bytes(path.read_bytes() + f"{mark('nul')}\0,x\n".encode())
    return {}


def _no_such_column(source: Path) -> dict[str, Any]:
    return {"view_column": "view"}


def _settings(**settings: str) -> Callable[[Path], dict[str, Any]]:
    return lambda source: settings


def _lost(source: Path) -> dict[str, Any]:
    next(source.rglob("*.png")).unlink()
    return {}


def _linked(source: Path) -> dict[str, Any]:
    path = next(source.rglob("*.png"))
    path.unlink()
    path.symlink_to(path)
    return {}


def _other_size(source: Path) -> dict[str, Any]:
    rows = rows_of(source)
    path = source / mark("mask.png")
    planted.png(path, pixels=np.full((10, 10), 255, np.uint8))
    for row in rows:
        row[6] = path.name
    write_table(source, rows)
    return {"mask_column": "notes"}


MISTAKES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "label_is_a_name": _set("cancer", mark("label")),
    "path_leads_out": _set("picture", f"../{mark('up')}.png"),
    "path_is_absolute": _set("picture", f"/tmp/{mark('abs')}.png"),
    "path_is_long": _set("picture", mark("long") * 100),
    "path_is_empty": _set("picture", ""),
    "file_is_lost": _lost,
    "file_is_a_loop": _linked,
    "age_is_a_name": _set("age", mark("age")),
    "split_is_a_name": lambda source: _set("part", mark("part"))(source) | {"split_column": "part"},
    "patient_in_two_splits": _torn,
    "row_twice": _twice,
    "two_tables": _second_table,
    "no_header": _headless,
    "semicolons": _semicolons,
    "latin_1": _recoded("latin-1"),
    "utf_16": _recoded("utf-16"),
    "long_row": _long_row,
    "open_quote": _quote,
    "nul": _nul,
    "no_such_column": _no_such_column,
    "label_column_of_names": _settings(label_column="full_name", class_map="", task="label"),
    "label_column_of_ids": _settings(label_column="patient_id", class_map="", task="label"),
    "label_column_of_notes": _settings(label_column="notes", class_map="", task="label"),
    "label_column_of_dates": _settings(label_column="visit", class_map="", task="label"),
    "labels_without_map": _settings(class_map=""),
    "keep_names": _settings(keep_columns="full_name"),
    "keep_notes": _settings(keep_columns="notes"),
    "keep_visits": _settings(keep_columns="visit"),
    "keep_paths": _settings(keep_columns="picture"),
    "mask_of_names": _settings(mask_column="full_name"),
    "mask_of_other_size": _other_size,
    "path_of_names": _settings(path_column="full_name"),
    "side_of_names": _settings(laterality_column="full_name"),
    "view_of_names": _settings(view_column="notes"),
    "split_of_names": _settings(split_column="full_name"),
}

READ_ALL_THE_SAME = ("side_of_names", "view_of_names", "age_is_a_name", "semicolons")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_table_is_told_without_its_cells(
    mistake: str, source: Path, home: Path, nothing_told: Callable[..., None]
) -> None:
    settings = table(source)
    settings |= MISTAKES[mistake](source)
    done = doors.here("preprocess", source=source, **settings, **SMALL, **HALVES)
    # a side or a view that is none is left open, which is no mistake
    assert done.code == (0 if mistake in READ_ALL_THE_SAME else 2)
    if done.code:
        assert done.err.splitlines()[-1].startswith("preprocess: ")
        assert "Traceback" not in done.err
        assert not (home / "datasets").exists()
    nothing_told(done)


def test_folders_named_after_people_are_no_classes(
    source: Path, home: Path, nothing_told: Callable[..., None]
) -> None:
    for number in range(PATIENTS):
        planted.png(source / f"{mark('person')}{number}" / "1.png", number)
    for task in ("label", "malignancy2"):
        done = doors.here("preprocess", source=source, dataset="folder", task=task, **SMALL)
        assert done.code == 2, task
        nothing_told(done)


CBIS_TABLE = "mass_case_description_train_set.csv"


def _cbis_cell(column: str, value: str) -> Callable[[Path], None]:
    def change(source: Path) -> None:
        frame = pd.read_csv(source / CBIS_TABLE, dtype="str")
        frame.loc[3, column] = value
        frame.to_csv(source / CBIS_TABLE, index=False)

    return change


def _cbis_renamed(patient: str) -> Callable[[Path], None]:
    """One more file, whose PatientID is not as the others'."""
    return lambda source: _ignored(planted.dicom(
        source / mark("more") / "1.dcm", patient=patient,
        SeriesDescription="full mammogram images"))  # fmt: skip


def _ignored(_: object) -> None:
    return None


def _cbis_headless(source: Path) -> None:
    path = source / CBIS_TABLE
    path.write_text(path.read_text().split("\n", 1)[1])


CBIS_MISTAKES: dict[str, Callable[[Path], None]] = {
    **{column.replace(" ", "_"): _cbis_cell(column, mark("cell"))
       for column in ("patient_id", "breast_density", "left or right breast", "image view",
                      "assessment", "pathology", "subtlety", "abnormality type")},
    "a_person_as_subset": _cbis_renamed(f"{STEM}-Jane_P_71999_LEFT_CC"),
    "a_person_as_patient": _cbis_renamed(f"{STEM}^Jane"),
    "a_person_after_the_view": _cbis_renamed(f"Mass-Test_P_71999_LEFT_CC_{STEM}"),
    "no_header": _cbis_headless,
    "twice": lambda source: (source / f"mass_case_description_{mark('t')}.csv").write_bytes(
        (source / CBIS_TABLE).read_bytes()) and None,
}  # fmt: skip


@pytest.mark.parametrize("mistake", CBIS_MISTAKES)
@pytest.mark.parametrize("task", ["malignancy2", "birads"])
def test_a_mistake_in_a_release_of_cbis_is_told_without_names(
    mistake: str, task: str, source: Path, home: Path, nothing_told: Callable[..., None]
) -> None:
    settings = cbis(source)
    CBIS_MISTAKES[mistake](source)
    done = doors.here(
        "preprocess", source=source, task=task, strict=False, **settings, **SMALL,
        val_fraction=0, test_fraction=0,
    )  # fmt: skip
    assert done.code in (0, 2)
    assert "Traceback" not in done.err
    nothing_told(done)


@pytest.mark.parametrize(
    "lines",
    [
        "patient,split\n{0},train\n",
        "patient,split\n{0},{0}\n",
        "split,patient\n{0},train\n",
        "{0},train\n{1},test\n",
        "patient,split,fold\n{0},train,{1}\n",
        "patient,split\n{0},train\n{0},test\n",
        "patient;split\n{0};train\n",
        'patient,split\n"{0},train\n',
        "patient,split\n{0},train,{1},{1}\n",
        "# mammo splits {0}\npatient,split\n",
    ],
)
def test_a_mistake_in_a_split_file_is_told_without_patients(
    lines: str, source: Path, home: Path, nothing_told: Callable[..., None]
) -> None:
    settings = table(source)
    file = source / "splits.csv.txt"
    file.write_text(lines.format(mark("p0"), mark("p1")))
    done = doors.here("preprocess", source=source, split_file=file, **settings, **SMALL, **HALVES)
    assert done.code == 2
    assert "Traceback" not in done.err
    nothing_told(done)


def test_a_file_that_may_not_be_read_is_not_named(
    source: Path, home: Path, nothing_told: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dicom_folder(source)

    def forbidden(folder: Path) -> None:  # the tests may run as root, who may read everything
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / mark("closed")))

    monkeypatch.setattr("mammo.data.sources.folder.find_images", forbidden)
    done = doors.here("preprocess", source=source, **settings, **SMALL, **HALVES)
    assert done.code == 2
    assert f"in source {source} cannot be read: Permission denied" in done.err
    nothing_told(done)


# ---- the whole way, by processes
def test_no_identifier_leaves_the_pipeline(
    source: Path, tmp_path: Path, home: Path, nothing_told: Callable[..., None]
) -> None:
    settings = spoilt(source)
    made = doors.mammo(
        "preprocess", source=source, strict=False, workers=2, **settings, **SMALL, **HALVES
    )
    mixed = doors.mammo("mix", real=made.uri, real_percentage=0.5, mix_mode="append",
                        synthetic_multiplier=0.0)  # fmt: skip
    outcomes = [made, mixed, doors.mammo("lineage", made.run_id), doors.mammo("doctor", made.uri)]
    for layout in ("system0", "system2"):
        written = tmp_path / layout
        outcomes.append(doors.mammo("data", "export", made.uri, layout=layout, output=written))
        assert list(written.rglob("*.*"))
    assert [each.code for each in outcomes] == [0, 0, 0, outcomes[3].code, 0, 0]
    assert outcomes[3].code in (0, 2)  # what it finds may be fatal
    assert list(home.rglob("doctor.html"))
    nothing_told(*outcomes)


def test_a_killed_preprocess_leaves_no_identifier_behind(
    source: Path, home: Path, nothing_told: Callable[..., None]
) -> None:
    settings = dicom_folder(source)
    command = doors.mammo_command(
        "preprocess", source=source, **settings, image_size="1024", **HALVES
    )
    with subprocess.Popen(
        command, env=doors.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + 120
        while not list(home.rglob("images-*.npy")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list(home.rglob("images-*.npy"))
    nothing_told(doors.Outcome(137, out, err))


# ---- private/


def test_private_files_are_their_owners_and_the_salt_is_nowhere_else(
    tmp_path: Path, source: Path, home: Path
) -> None:
    settings = spoilt(source)
    held = os.umask(0)  # the least careful of users
    try:
        done = doors.here("preprocess", source=source, strict=False, **settings, **SMALL, **HALVES)
    finally:
        os.umask(held)
    assert done.code == 0
    private = home / "private"
    for path in [private, *private.rglob("*")]:
        right = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == right, path.name
    salt = (private / "salt").read_bytes()
    assert len(salt) == 32
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_relative_to(private):
            content = path.read_bytes()
            assert salt not in content
            assert salt.hex().encode() not in content.lower()
            assert base64.b64encode(salt)[:40] not in content


def test_hashed_ids_differ_from_one_work_folder_to_another(
    source: Path, home: Path, tmp_path: Path
) -> None:
    settings = dicom_folder(source)
    ids = []
    for name in ("one", "two"):
        work = tmp_path / name
        done = doors.here(
            "preprocess", source=source, work_dir=work, reuse=False, **settings, **SMALL, **HALVES
        )
        assert done.code == 0
        dataset = next((work / "datasets").iterdir())
        ids.append(set(pd.read_parquet(dataset / "manifest.parquet")["group_id"]))
    assert len(ids[0]) == len(ids[1]) == PATIENTS
    assert not ids[0] & ids[1]
