"""The split of every patient as a file: written by one run, followed exactly by another.

The first line holds the digest of the lines below it and the salt's fingerprint:
`# mammo splits <digest> salt <fingerprint>`. A file made by hand has no such line.
"""

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from mammo.data.disclosure import sayable
from mammo.data.manifest import SPLITS
from mammo.errors import DataError

ORIGINAL = "patient"  # column of a file made by hand: the release's own ids
_HEAD = re.compile(r"# mammo splits (?P<digest>[0-9a-f]{32}) salt (?P<salt>[0-9a-f]*)")
_COLUMNS = ["split", "fold"]
_MOST_COLUMNS = 1000


def write_split_file(frame: pd.DataFrame, path: Path, *, salt: str = "") -> str:
    """Write group_id, split and fold of each patient of `frame` as CSV; returns `split_digest`."""
    text = _text(frame)
    digest = _digest(text)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(f"# mammo splits {digest} salt {salt}\n{text}")
    partial.replace(path)
    return digest


def split_digest(frame: pd.DataFrame) -> str:
    """Hash of who is where: of the sorted (group_id, split, fold) of the real rows of `frame`."""
    return _digest(_text(frame))


def read_split_file(
    path: Path, *, salt: str = "", hashed: Callable[[str], str] | None = None
) -> pd.DataFrame:
    """Columns split and fold by group_id (index) of a CSV, made by mammo or by hand.

    A file made by hand names patients in the column patient, as the release does; `hashed` turns
    such an id into a group_id. `salt` is the fingerprint of the salt that a file of mammo must
    bear. `fold` may be missing (-1 then), further columns are ignored. DataError gives rows, as
    a spreadsheet counts them, and never an id, which may be the original one.
    """
    head, body = _checked(path, salt)
    first = body.partition("\n")[0]
    mark = max(",;\t", key=first.count)  # spreadsheets of many countries write semicolons
    columns = first.count(mark) + 1
    if columns > _MOST_COLUMNS:  # pandas would take minutes to say it
        raise DataError(f"split_file {path} has {columns} columns; two or three are needed")
    try:
        table = pd.read_csv(io.StringIO(body), sep=mark, dtype="str", keep_default_na=False)
    except ValueError as error:
        raise DataError(f"split_file {path} cannot be read: {error}") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise DataError(f"split_file {path} has rows with more fields than its first line")
    table = table.apply(lambda values: values.str.strip())
    key = next((name for name in ("group_id", ORIGINAL) if name in table), None)
    if key is None or "split" not in table:
        lacking = "split" if key else ORIGINAL
        raise DataError(  # without its columns: a file without a head has a patient there
            f"split_file {path} lacks the column {lacking!r}; its first line should be "
            "patient,split or patient,split,fold"
        )
    if key == ORIGINAL and hashed is None:
        raise DataError(
            f"split_file {path} names patients in the column {ORIGINAL}, which goes with "
            "group_by patient; take a splits.csv of an earlier run with this group_by"
        )
    table.index += head + 2  # the row that a spreadsheet shows, below the names of the columns
    table["fold"] = _folds(table["fold"], path) if "fold" in table else -1
    _check_rows(table, key, path)
    if key == ORIGINAL and hashed is not None:
        table[key] = table[key].map(hashed)
    table = table.drop_duplicates(key)[[key, *_COLUMNS]]
    return table.set_index(key).rename_axis("group_id").sort_index()


def apply_split_file(
    frame: pd.DataFrame, table: pd.DataFrame, *, new_patients: str = "error"
) -> pd.DataFrame:
    """Columns split and fold for every row of `frame` (column group_id) from `read_split_file`.

    `new_patients`, whom the file does not name, are an error, or train.
    """
    new = frame.loc[~frame["group_id"].isin(table.index), "group_id"].nunique()
    if new and new_patients == "error":
        raise DataError(
            f"split_file has no line for {new} of {frame['group_id'].nunique()} patients of the "
            "release; add them, or let them train with --new_patients train"
        )
    if new and (table["fold"] >= 0).any():
        raise DataError(
            f"split_file has folds and no line for {new} patients, who would be in no fold; "
            "give each of them a fold"
        )
    found = table.reindex(frame["group_id"]).set_axis(frame.index)
    return found.fillna({"split": "train", "fold": -1}).astype({"fold": "int64"})


def missing_patients(frame: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Lines of `table` whose patient has no row in `frame`: columns group_id, split, fold."""
    return table[~table.index.isin(frame["group_id"])].reset_index()


def _checked(path: Path, salt: str) -> tuple[int, str]:
    """Lines of the head (0 or 1) and the text below it, once its digest and salt are checked."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"split_file {path} cannot be read: {error}") from None
    if not text.startswith("# mammo splits"):
        return 0, text
    first, _, body = text.partition("\n")
    said = _HEAD.fullmatch(first.strip())
    if not said or _digest(body) != said["digest"]:
        raise DataError(
            f"split_file {path} was changed after mammo wrote it: its lines do not give the digest "
            "in its first line; take the original, or remove the first line to use it as it is"
        )
    if salt and said["salt"] and said["salt"] != salt:
        raise DataError(
            f"split_file {path} was made with another salt or group_by ({said['salt']}, here "
            f"{salt}), so its patients cannot be told; use the work_dir it was made in, or a file "
            f"with the release's own ids in a column {ORIGINAL}"
        )
    return 1, body


def _check_rows(table: pd.DataFrame, key: str, path: Path) -> None:
    wrong = table[~table["split"].isin(SPLITS)]
    if len(wrong):
        raise DataError(
            f"split_file {path} has split {sayable(wrong.iloc[0]['split'])} in row "
            f"{wrong.index[0]}; it should be one of train, val, test"
        )
    nobody = table[table[key] == ""]
    if len(nobody):
        raise DataError(f"split_file {path} has no patient in row {nobody.index[0]}; name one")
    tested = table[(table["split"] == "test") & (table["fold"] >= 0)]
    if len(tested):
        raise DataError(
            f"split_file {path} puts a fold to a test patient in row {tested.index[0]}; "
            "leave the fold empty there"
        )
    once = table[[key, *_COLUMNS]].drop_duplicates()
    torn = once[once[key].duplicated()]
    if len(torn):
        rows = once.index[once[key] == torn.iloc[0][key]]
        raise DataError(
            f"split_file {path} puts the patient of rows {rows[0]} and {rows[1]} in two splits or "
            f"folds ({torn[key].nunique()} such patients); give each patient one line"
        )


def _folds(values: pd.Series, path: Path) -> pd.Series:
    """Numbers of folds; -1 where the text is empty."""
    wrong = values[~values.str.fullmatch(r"(-1|\d{1,6}(\.0)?)?")]
    if len(wrong):
        raise DataError(
            f"split_file {path} has fold {sayable(wrong.iloc[0])} in row {wrong.index[0]}; "
            "give a number from 0, or nothing"
        )
    return pd.to_numeric(values.replace("", "-1")).astype("int64")


def _text(frame: pd.DataFrame) -> str:
    real = frame[~frame["is_synthetic"]] if "is_synthetic" in frame else frame
    table = real.groupby("group_id", sort=True)[_COLUMNS].first()
    text: str = table.to_csv(lineterminator="\n")
    return text


def _digest(text: str) -> str:
    plain = "\n".join(text.splitlines())  # whatever a transfer made of the line ends
    return hashlib.sha256(plain.encode()).hexdigest()[:32]
