"""Tables with any column names: what they may name, what splits they tell, what they never show."""

from collections.abc import Callable
from pathlib import Path

import pytest
from releases_form import picture, text

from mammo.data.release import Record, Release
from mammo.data.sources import check_request, open_adapter
from mammo.errors import ConfigError, DataError, MammoError

COLUMNS = {
    "path_column": "image",
    "patient_column": "who",
    "label_column": "cancer",
    "class_map": "malignant=1,benign=0",
}


def release(folder: Path, task: str = "malignancy2", **options: str) -> Release:
    check_request("csv", task, options)
    return open_adapter("csv").read(folder, task=task, options=options)


def read(folder: Path, task: str = "malignancy2", **options: str) -> list[Record]:
    return release(folder, task, **options).records


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Four images of three patients, with a table."""
    rows = ["image,who,cancer,side,view,part,scanner,age"]
    for number, (who, cancer, part) in enumerate(
        [("p", 1, "train"), ("p", 0, "train"), ("q", 0, "valid"), ("r", 1, "test")]
    ):
        picture(tmp_path / f"images/{number}.png")
        rows.append(f"images/{number}.png,{who},{cancer},left,mlo,{part},X,5{number}")
    text(tmp_path / "list.csv", "\n".join(rows) + "\n")
    return tmp_path


def change(folder: Path, old: str, new: str) -> None:
    table = folder / "list.csv"
    table.write_text(table.read_text().replace(old, new))


def test_a_table_with_any_column_names(listed: Path) -> None:
    records = read(
        listed, laterality_column="side", view_column="view", split_column="part",
        keep_columns="scanner,age", **COLUMNS,
    )  # fmt: skip
    assert [each.label for each in records] == ["malignant", "benign", "benign", "malignant"]
    assert [each.split for each in records] == ["train", "train", "val", "test"]
    assert (records[0].laterality, records[0].view, records[0].patient) == ("L", "MLO", "p")
    assert records[0].extra == {"scanner": "X"}
    assert records[3].age == 53


def test_what_is_no_side_and_no_view_is_left_open(listed: Path) -> None:
    change(listed, "left,mlo", "both,tangential of Jane Doe")
    records = read(listed, laterality_column="side", view_column="view", **COLUMNS)
    assert {(each.laterality, each.view) for each in records} == {("", "")}


def test_the_names_of_several_tables_tell_the_split(tmp_path: Path) -> None:
    for name, who in (("train", "p"), ("val", "q"), ("test", "r")):
        picture(tmp_path / f"images/{who}.png")
        text(tmp_path / f"{name}.csv", f"image,who,cancer\nimages/{who}.png,{who},1\n")
    records = read(tmp_path, csv="train.csv, val.csv, test.csv", **COLUMNS)
    assert [(each.patient, each.split) for each in records] == [
        ("p", "train"), ("q", "val"), ("r", "test"),
    ]  # fmt: skip
    assert [each.split for each in read(tmp_path, csv="train.csv", **COLUMNS)] == [""]
    text(tmp_path / "more.csv", "image,who,cancer\nimages/p.png,s,1\n")
    with pytest.raises(ConfigError, match=r"csv more\.csv: the name .* must tell its split"):
        read(tmp_path, csv="train.csv,more.csv", **COLUMNS)


def test_a_table_of_generated_images_needs_their_origin(listed: Path) -> None:
    (listed / "list.csv").rename(listed / "synthetic.csv")
    with pytest.raises(ConfigError, match=r"synthetic\.csv holds generated images by its name"):
        read(listed, **COLUMNS)
    assert len(read(listed, synthetic_origin="guidance 3", **COLUMNS)) == 4


def test_a_pattern_makes_the_path_of_columns(tmp_path: Path) -> None:
    folder = "input/images_as_pngs_512"
    text(
        tmp_path / "input/train.csv",
        "patient_id,image_id,laterality,cancer\n10006,462822612,L,0\n10011,220375232,R,1\n",
    )
    for name in ("10006_462822612", "10011_220375232"):
        picture(tmp_path / folder / f"train_images_processed_512/{name}.png")
    records = read(
        tmp_path, csv="input/train.csv", patient_column="patient_id", label_column="cancer",
        laterality_column="laterality", class_map="benign=0,malignant=1",
        path_pattern=folder + "/{csv}_images_processed_512/{patient_id}_{image_id}.png",
    )  # fmt: skip
    assert [(each.patient, each.laterality, each.label) for each in records] == [
        ("10006", "L", "benign"),
        ("10011", "R", "malignant"),
    ]
    assert [each.paths[0].name for each in records] == [
        "10006_462822612.png", "10011_220375232.png",
    ]  # fmt: skip


def test_several_path_columns_are_channels(tmp_path: Path) -> None:
    for name in ("low.png", "sub.png", "m1.png", "m2.png"):
        picture(tmp_path / name)
    text(tmp_path / "list.csv", "a,b,mask,cancer\nlow.png,sub.png,m1.png;m2.png,1\n")
    (record,) = read(
        tmp_path, path_column="a,b", mask_column="mask", label_column="cancer",
        class_map="malignant=1,benign=0",
    )  # fmt: skip
    assert [path.name for path in record.paths] == ["low.png", "sub.png"]
    assert [path.name for path in record.masks] == ["m1.png", "m2.png"]


def test_rows_without_a_label_or_of_one_left_out_are_counted(listed: Path) -> None:
    change(listed, "images/1.png,p,0", "images/1.png,p,")
    change(listed, "images/2.png,q,0", "images/2.png,q,9")
    found = release(listed, **{**COLUMNS, "class_map": "malignant=1,benign=0,leave_out=9"})
    assert [each.label for each in found.records] == ["malignant", "malignant"]
    assert dict(found.left_out) == {
        "without a label": 1,
        "of a label that is left out (leave_out)": 1,
    }


def test_the_label_kind_is_the_users_to_say(listed: Path) -> None:
    assert release(listed, **COLUMNS).classes.label_kind == "pathology"
    assert release(listed, label_kind="birads", **COLUMNS).classes.label_kind == "birads"
    with pytest.raises(ConfigError, match="label_kind 'rumor' is not one of pathology, birads"):
        release(listed, label_kind="rumor", **COLUMNS)


def test_a_patient_in_two_splits_is_refused_unnamed(listed: Path) -> None:
    change(listed, "images/2.png,q", "images/2.png,p")
    message = r"'train' in row 2 of the table, 'val' in row 4 of the table"
    with pytest.raises(DataError, match=message):
        read(listed, split_column="part", **COLUMNS)


def test_a_row_keeps_its_number_behind_an_empty_one(listed: Path) -> None:
    change(listed, "images/2.png,q", ",,,,,,,\nimages/0.png,q")
    with pytest.raises(DataError, match=r"row 2 of the table and row 5 of the table name the same"):
        read(listed, **COLUMNS)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "images/../../secret.png"])
def test_a_path_out_of_the_source_is_refused(listed: Path, path: str) -> None:
    change(listed, "images/2.png", path)
    with pytest.raises(DataError, match=r"row 4 of the table is empty or leads out of source"):
        read(listed, **COLUMNS)


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_out_of_the_source_is_refused(
    listed: Path, tmp_path_factory: pytest.TempPathFactory, link: str
) -> None:
    outside = picture(tmp_path_factory.mktemp("outside") / "secret.png")
    if link == "file":
        (listed / "images/2.png").unlink()
        (listed / "images/2.png").symlink_to(outside)
    else:
        (listed / "away").symlink_to(outside.parent)
        change(listed, "images/2.png", "away/secret.png")
    with pytest.raises(DataError, match="a link that leads out of source") as caught:
        read(listed, **COLUMNS)
    assert "secret" not in str(caught.value)


def test_a_link_to_itself_ends_in_one_line(listed: Path) -> None:
    (listed / "images/2.png").unlink()
    (listed / "images/2.png").symlink_to(listed / "images/2.png")
    with pytest.raises(DataError, match="a link that leads to itself"):
        read(listed, **COLUMNS)


def test_a_link_that_stays_inside_is_followed(listed: Path) -> None:
    (listed / "images/2.png").rename(listed / "kept.png")
    (listed / "images/2.png").symlink_to(listed / "kept.png")
    assert len(read(listed, **COLUMNS)) == 4


@pytest.mark.parametrize("column", ["PatientName", "study_date", "image_id", "AccessionNo"])
def test_columns_that_look_like_identifiers_are_not_kept(tmp_path: Path, column: str) -> None:
    text(tmp_path / "list.csv", f"image,who,cancer,{column}\na.png,p,1,x\nb.png,q,0,x\n")
    with pytest.raises(ConfigError, match="looks like an identifier"):
        read(tmp_path, keep_columns=column, **COLUMNS)


VALUES: dict[str, tuple[Callable[[int], str], str]] = {
    "a text for each row": (lambda n: f"x{n}", "each patient has a value of its own"),
    "a number for each patient": (lambda n: str(1000 + n // 2), "a value of its own"),
    "long numbers": (lambda n: str(48213 + n % 3), "the number of a person"),
    "dates": (lambda n: f"{n % 3 + 1}.5.1955", "a date"),
    "days without marks": (lambda n: "19550203", "a date"),
    "names": (lambda n: "Doe^Jane", "a name"),
    "addresses": (lambda n: "jane@example.org", "a name or an address"),
    "reports": (lambda n: "the patient came back after a year", "free text"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_column_whose_values_tell_of_a_person_is_not_kept(tmp_path: Path, kind: str) -> None:
    value, reason = VALUES[kind]
    rows = "".join(f"{n}.png,{n // 2},{n % 2},{value(n)}\n" for n in range(24))
    text(tmp_path / "list.csv", "image,who,cancer,code\n" + rows)
    who = "image" if kind == "a text for each row" else "who"
    with pytest.raises(ConfigError, match=reason) as caught:
        read(tmp_path, keep_columns="code", **{**COLUMNS, "patient_column": who})
    assert value(0) not in str(caught.value)


def test_measures_are_kept(tmp_path: Path) -> None:
    """A size in mm for each image, a scanner, a site: nothing of a person."""
    for n in range(24):
        picture(tmp_path / f"{n}.png")
    rows = "".join(f"{n}.png,{n // 2},{n % 2},{n / 7:.6f},X{n % 3}\n" for n in range(24))
    text(tmp_path / "list.csv", "image,who,cancer,size_mm,scanner\n" + rows)
    records = read(tmp_path, keep_columns="size_mm,scanner", **COLUMNS)
    assert records[7].extra == {"size_mm": "1.000000", "scanner": "X1"}


SECRET = "Jane Mustermann"
WRONG_LABELS: dict[str, Callable[[int], str]] = {
    "names": lambda n: f"{SECRET} {'abcdefghijklmnopqrstuvwxyz'[n % 26]}",
    "reports": lambda n: f"{SECRET} was seen again after her biopsy of last May",
    "dates": lambda n: f"195{n % 10}-02-03",
    "numbers": lambda n: f"4821300{n % 5}",
}


@pytest.mark.parametrize("kind", WRONG_LABELS)
@pytest.mark.parametrize("task", ["malignancy2", "label"])
def test_a_wrong_label_column_shows_none_of_its_values(
    tmp_path: Path, kind: str, task: str
) -> None:
    value = WRONG_LABELS[kind]
    rows = "".join(f"{n}.png,{n},{value(n)}\n" for n in range(30))
    text(tmp_path / "list.csv", "image,who,cancer\n" + rows)
    with pytest.raises(ConfigError, match="label_column 'cancer' has ") as caught:
        read(tmp_path, task, **{**COLUMNS, "class_map": ""})
    assert value(0) not in str(caught.value) and "Jane" not in str(caught.value)


def test_a_few_names_taken_for_labels_are_not_shown(tmp_path: Path) -> None:
    text(tmp_path / "list.csv", "image,who,cancer\na.png,p,Jane\nb.png,q,Joan\n")
    for class_map in ("", "malignant=1,benign=0"):
        with pytest.raises(DataError, match="2 of 2") as caught:
            read(tmp_path, **{**COLUMNS, "class_map": class_map})
        assert "Jane" not in str(caught.value) and "Joan" not in str(caught.value)


def test_a_label_of_known_words_is_shown(listed: Path) -> None:
    change(listed, "images/2.png,q,0", "images/2.png,q,probably benign")
    with pytest.raises(DataError, match="no class for the label 'probably benign'"):
        read(listed, **COLUMNS)


def test_an_unknown_split_is_counted_and_not_shown(listed: Path) -> None:
    change(listed, "mlo,train", "mlo,Jane Doe")
    message = r"in 2 rows, first in row 2 of the table"
    with pytest.raises(DataError, match=message) as caught:
        read(listed, split_column="part", **COLUMNS)
    assert "Jane" not in str(caught.value)


BROKEN: dict[str, tuple[bytes, str]] = {
    "Latin-1": (b"image,who,cancer\nM\xfcller.png,p,1\n", "is not UTF-8"),
    "a NUL": (b"image,who,cancer\na\x00.png,p,1\n", "row 2 of the table holds a NUL"),
    "a column twice": (b"image,who,cancer,who\na.png,p,1,q\n", "has a column twice: 'who'"),
    "a long row": (b"image,who,cancer\na.png,p,1,Doe\n", "row 2 of .* has 4 fields, its header 3"),
    "no rows": (b"image,who,cancer\n", "it has no rows"),
    "nothing": (b"", "is empty"),
    "an open quote": (b'image,who,cancer\n"a.png,p,1\n', "not CSV"),
    "no header": (b"a.png,48213001,1955-02-03\n" * 2, "no header .2 of its 3 cells are numbers"),
    "a long name": (b"image,who,cancer\n" + b"a" * 300 + b".png,p,1\n", "no file's name"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_table_ends_in_one_line(tmp_path: Path, kind: str) -> None:
    content, message = BROKEN[kind]
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(MammoError, match=message) as caught:
        read(tmp_path, **COLUMNS)
    assert "\n" not in str(caught.value) and "48213001" not in str(caught.value)


def test_a_missing_image_is_rejected_and_the_others_kept(listed: Path) -> None:
    (listed / "images/2.png").unlink()
    found = release(listed, **COLUMNS)
    assert found.rejected == [("images/2.png", "the file is missing")]
    assert len(found.records) == 3


def test_what_a_table_lacks_is_named(listed: Path) -> None:
    with pytest.raises(ConfigError, match="needs either path_column, or path_pattern"):
        read(listed)
    with pytest.raises(ConfigError, match="needs label_column"):
        read(listed, path_column="image")
    with pytest.raises(ConfigError, match=r"path_column 'file' is not in the table; it has image"):
        read(listed, **{**COLUMNS, "path_column": "file"})
    with pytest.raises(ConfigError, match=r"path_pattern 'nr' is not in the table"):
        read(listed, path_pattern="images/{nr}.png", label_column="cancer")
    with pytest.raises(ConfigError, match="names no column"):
        read(listed, path_pattern="images/x.png", label_column="cancer")
    text(listed / "more.csv", "image\n")
    with pytest.raises(DataError, match=r"holds 2; name it with --csv"):
        read(listed, **COLUMNS)


def test_a_task_may_be_the_name_of_the_column(listed: Path) -> None:
    options = {**COLUMNS}
    del options["label_column"]
    found = release(listed, "cancer", **options)
    assert [each.label for each in found.records] == ["malignant", "benign", "benign", "malignant"]
    assert (found.classes.task, found.classes.positive) == ("label", "malignant")
    with pytest.raises(ConfigError, match="label_column 'malign' is not in the table"):
        read(listed, "malign", **options)
    with pytest.raises(ConfigError, match="unknown task 'malign'"):
        read(listed, "malign", **COLUMNS)


def test_a_row_without_a_patient_or_with_a_mask_that_is_not_there_is_rejected(
    tmp_path: Path,
) -> None:
    for name in ("a.png", "b.png", "c.png", "m.png"):
        picture(tmp_path / name)
    rows = ["image,who,cancer,mask", "a.png,p,1,m.png", "b.png,,0,", "c.png,q,0,m.png;none.png"]
    text(tmp_path / "list.csv", "\n".join(rows) + "\n")
    found = release(tmp_path, **COLUMNS, mask_column="mask")
    assert [each.patient for each in found.records] == ["p"]
    assert found.rejected == [
        ("b.png", "its row names no patient"),
        ("c.png", "the file of its mask is missing"),
    ]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_as_other_countries_spreadsheets_save_it(listed: Path, mark: str) -> None:
    known = read(listed, **COLUMNS)
    table = listed / "list.csv"
    table.write_text(table.read_text().replace(",", mark))
    assert read(listed, **COLUMNS) == known
