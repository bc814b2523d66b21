"""Tables of a release: CSV and Excel give the same rows; what is wrong is said in one line."""

import datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammo.data.tables import read_table, refuse_repeated
from mammo.errors import DataError


def csv_file(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_text(content, encoding=encoding)
    return path


def excel_file(path: Path, lines: list[tuple[object, ...]], sheet: str = "first") -> Path:
    book = openpyxl.Workbook()
    book.worksheets[0].title = sheet
    for line in lines:
        book.worksheets[0].append(line)
    book.create_sheet("second").append(("c",))
    book.save(path)
    return path


def test_csv_and_excel_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"a": "1", "b": "x, y"}, {"a": "2", "b": ""}]
    comma = csv_file(tmp_path / "a.csv", '\ufeffa, b\r\n1," x, y "\r\n,\r\n2\r\n')
    assert read_table(comma, needs=("a",)) == rows
    semicolon = csv_file(tmp_path / "b.csv", "a;b;\n1;x, y;\n2;;\n")
    assert read_table(semicolon, needs=("b", "a"), delimiter=";") == rows
    excel = excel_file(tmp_path / "c.xlsx", [("a", "b"), (1.0, " x, y"), (None, None), (2, None)])
    assert read_table(excel, needs=("a", "b")) == rows
    assert read_table(excel, needs=(), sheet="second") == []


def test_cells_of_excel_are_written_as_csv_has_them(tmp_path: Path) -> None:
    line = (1, 2.5, True, datetime.datetime(2020, 1, 2))
    path = excel_file(tmp_path / "a.xlsx", [("a", "b", "c", "d"), line])
    assert read_table(path, needs=()) == [{"a": "1", "b": "2.5", "c": "True", "d": "2020-01-02"}]


def test_columns_can_be_bounded_and_rows_numbered(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", "a,b,c\n1,2,3\n\n4,5,6\n")
    assert read_table(path, needs=("a",), keep=("a", "c", "z"), number_as="row") == [
        {"a": "1", "c": "3", "row": "2"},
        {"a": "4", "c": "6", "row": "4"},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,c\n1,2\n", r"the list of films has no column 'b'; it has a, c$"),
        (b"", "the list of films is empty"),
        (b"a,b,a\n", "the list of films has a column twice: 'a'"),
        (b"a,b\n1,2\n1,2,3\n", "row 3 of the list of films has 3 fields, its header 2"),
        (b"a,b\n1,M\xfcller\n", r"is not UTF-8 text \(byte 0xfc\); save it as UTF-8"),
        (b'a,b\n1,"2" 3\n', "the list of films is not CSV"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "Erika_Mustermann.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(path, needs=("a", "b"), kind="list of films")
    assert "Erika" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_excel_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04 not a book")
    with pytest.raises(DataError, match="the table is not an Excel file, or a broken one"):
        read_table(tmp_path / "a.xlsx", needs=())
    whole = excel_file(tmp_path / "b.xlsx", [("a",), ("x" * 999,)]).read_bytes()
    (tmp_path / "b.xlsx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not an Excel file, or a broken one"):
        read_table(tmp_path / "b.xlsx", needs=())
    with pytest.raises(DataError, match="has no sheet 'third'; it has first, second"):
        read_table(excel_file(tmp_path / "c.xlsx", [("a",)]), needs=(), sheet="third")


def test_a_table_that_is_missing_is_refused(tmp_path: Path) -> None:
    for suffix in ("csv", "xlsx"):
        with pytest.raises(DataError, match="the table is no file"):
            read_table(tmp_path / f"none.{suffix}", needs=())


def test_repeated_values_are_counted_and_not_shown() -> None:
    rows = [{"id": "Erika"}, {"id": "Erika"}, {"id": "Max"}]
    refuse_repeated(rows[1:], "id", kind="table")
    with pytest.raises(DataError, match="1 values of column 'id' stand in several rows") as caught:
        refuse_repeated(rows, "id", kind="table")
    assert "Erika" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_give_rows_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("table") / "a.csv"
    path.write_bytes(content)
    try:
        rows = read_table(path, needs=())
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert all(value == value.strip() for row in rows for value in row.values())
