"""Reads the tables of a release, CSV or Excel, as rows of stripped text."""

import csv
import datetime
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mammo.data.disclosure import unlike_header
from mammo.errors import DataError

_EXCEL = (".xlsx", ".xlsm")
# What openpyxl and the ZIP file under it raise on broken, encrypted or exotic files
_BROKEN_BOOK = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, SyntaxError),
    *(KeyError, ValueError, IndexError, TypeError, AttributeError),
)
_MOST_UNPACKED = 256 << 20  # bytes in an Excel file; tables of releases have some MiB
_MOST_ROWS = 1 << 20  # of Excel
_LONGEST = 10_000_000  # characters of a field; csv's own 131,072 is less than a polygon may take


def read_table(
    path: Path,
    *,
    needs: Sequence[str],
    delimiter: str = ",",
    sheet: str = "",
    keep: Sequence[str] = (),
    kind: str = "table",
    number_as: str = "",
) -> list[dict[str, str]]:
    """Rows of the table at `path` by column; empty cells are "", rows without any are left out.

    Its header must have the columns `needs`; `keep` bounds what is returned to columns of these
    names (all of them if empty). An empty `delimiter` is the one of comma, semicolon and tab that
    the first line has most of. `sheet` names the sheet of an Excel file (its first by default).
    `number_as`, where given, gets a row's number as a spreadsheet shows it, the header being 1.
    Errors say `kind` and never the file's own name.
    """
    if not path.is_file():  # nor a pipe or a device, which would never end
        raise DataError(f"the {kind} is no file")
    lines = _excel(path, sheet, kind) if path.suffix.lower() in _EXCEL else _csv(path, delimiter)
    try:
        return _rows(lines, needs=needs, keep=frozenset(keep), kind=kind, number_as=number_as)
    except UnicodeDecodeError as error:
        raise DataError(
            f"the {kind} is not UTF-8 text (byte {error.object[error.start]:#04x}); "
            "save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise DataError(f"the {kind} is not CSV: {error}") from None
    except OSError as error:
        raise DataError(f"the {kind} cannot be read ({error.strerror})") from None


def refuse_repeated(rows: Iterable[Mapping[str, str]], column: str, *, kind: str) -> None:
    """DataError where two rows have the same text in `column`."""
    counts = Counter(row[column] for row in rows)
    again = sum(count > 1 for count in counts.values())
    if again:
        raise DataError(
            f"{again} values of column {column!r} stand in several rows of the {kind}; "
            "keep one row for each"
        )


def require_columns(columns: Sequence[str], needs: Iterable[str], *, kind: str) -> None:
    """DataError that names the first of `needs` which is none of `columns`."""
    for name in needs:
        if name not in columns:
            unlike = unlike_header(columns)  # a row of data in its place may name somebody
            held = f"is its first row no header ({unlike})?" if unlike else "it has "
            raise DataError(
                f"the {kind} has no column {name!r}; {held}{'' if unlike else ', '.join(columns)}"
            )


def _rows(
    lines: Iterable[Sequence[str]],
    *,
    needs: Sequence[str],
    keep: frozenset[str],
    kind: str,
    number_as: str,
) -> list[dict[str, str]]:
    reading = iter(lines)
    header = [name.strip() for name in next(reading, ())]
    while header and not header[-1]:  # a comma too many at the end of the first line
        header.pop()
    if not header:
        raise DataError(f"the {kind} is empty; a first line with the columns' names is needed")
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        name = "one" if unlike_header(twice) else repr(twice[0])
        raise DataError(f"the {kind} has a column twice: {name}")
    require_columns(header, needs, kind=kind)
    # only what is kept is touched one by one: tables of half a million rows have 150 columns
    kept = [(name, at) for at, name in enumerate(header) if name and (not keep or name in keep)]
    rows = []
    for number, line in enumerate(reading, start=2):
        if "\0" in "".join(line):
            raise DataError(f"row {number} of the {kind} holds a NUL; save it as UTF-8 text")
        if not any(map(str.strip, line)):
            continue
        if any(map(str.strip, line[len(header) :])):
            raise DataError(
                f"row {number} of the {kind} has {len(line)} fields, its header {len(header)}"
            )
        row = {name: line[at].strip() if at < len(line) else "" for name, at in kept}
        if number_as:
            row[number_as] = str(number)
        rows.append(row)
    return rows


def _csv(path: Path, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST)
    # utf-8-sig also reads what Excel saves, with a byte order mark in front
    with path.open(newline="", encoding="utf-8-sig") as file:
        if not delimiter:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
        yield from csv.reader(file, delimiter=delimiter, strict=True)


def _excel(path: Path, sheet: str, kind: str) -> Iterator[list[str]]:
    import warnings

    import openpyxl

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and validations, which no value needs
            with zipfile.ZipFile(file) as archive:
                if sum(member.file_size for member in archive.infolist()) > _MOST_UNPACKED:
                    raise DataError(f"the {kind} unpacks to more than {_MOST_UNPACKED >> 20} MiB")
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            if sheet and sheet not in book.sheetnames:
                raise DataError(
                    f"the {kind} has no sheet {sheet!r}; it has {', '.join(book.sheetnames)}"
                )
            chosen = book[sheet] if sheet else book.worksheets[0]
            chosen.reset_dimensions()  # said by the file, which may say 17 billion cells
            lines = islice(chosen.iter_rows(values_only=True), _MOST_ROWS)
            found = [[_text(value) for value in line] for line in lines]
    # a broken file shows itself anywhere in it; XML's errors are SyntaxErrors
    except _BROKEN_BOOK:
        raise DataError(f"the {kind} is not an Excel file, or a broken one") from None
    yield from found


def _text(value: Any) -> str:
    """A cell as CSV would have it: whole numbers without a point, dates as year-month-day."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)
