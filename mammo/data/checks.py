"""Cheap checks of a manifest, without a look at pixels: what must stop a run, what it must say."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

FATAL, WARNING, NOTE = SEVERITIES = ("fatal", "warning", "note")

# What may tell classes apart without showing the breast: the site and the make of the file.
SITES = ("vendor", "subset", "file_bits", "geometry")
STRONG = 0.3  # Cramer's V from which a table is a confound: "moderate" and above (Cohen 1988)
_SURE = 1e-3  # p below which a table is no accident; six columns are looked at, so not 0.05
_RARE = 0.05  # share of a class below which training alone will hardly see it
_TAIL = 5  # patients below which a value is put with others
OTHER = "other"
_FEW = 20  # patients without which a table of classes by sites says nothing
# Flags that change what an image shows; they are left out unless `exclude` was shortened.
_KEPT = ("implant", "magnification", "spot", "biopsy", "marked")
_SPARSE = ("laterality", "view", "birads", "density", "age", "vendor", "pixel_mm", "exam_id")


@dataclass(frozen=True)
class Finding:
    """Something wrong or remarkable in a dataset; `rows` are manifest positions that show it."""

    severity: str  # of SEVERITIES
    name: str
    text: str  # holds no original id
    count: int  # of images, unless the text says of what
    rows: tuple[tuple[int, ...], ...] = field(default=())  # images that belong on one picture


def check_rows(frame: pd.DataFrame, classes: Sequence[str]) -> list[Finding]:
    """Findings in the real rows of a manifest, the fatal ones first; O(rows)."""
    numbered = frame.reset_index(drop=True)
    real = numbered[~numbered["is_synthetic"]]
    if not len(real):
        return []
    checks = (_torn, _classes, _one_picture, _copies, _sites, _splits, _flags, _sides, _missing)
    found = [finding for check in checks for finding in check(real, classes)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def one_class(name: str, images: int) -> Finding:
    """What to say of a dataset whose `images` are all of class `name`."""
    text = (
        f"all {images} images are {name}, and nothing can be learned of one "
        "class; choose another task, more subsets or a higher limit"
    )
    return Finding(FATAL, "one class only", text, images)


def findings_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row a finding: severity, finding, what it says, and how many."""
    rows = [(each.severity, each.name, each.text, each.count) for each in findings]
    return pd.DataFrame(rows, columns=["severity", "finding", "what", "count"])


def geometry(frame: pd.DataFrame) -> pd.Series:
    """Height and width of each row's file as text, empty where they are not known."""
    text = frame["file_height"].astype(str) + "x" + frame["file_width"].astype(str)
    return text.where((frame["file_height"] > 0) & (frame["file_width"] > 0), "")


def cross_table(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Patients by class (rows) and value of `column`; a patient counts once in each cell."""
    values = geometry(frame) if column == "geometry" else frame[column].astype(str)
    known = frame.assign(value=values)[~values.isin(["", "-1", "nan"])]
    once = known.drop_duplicates(["group_id", "label", "value"])
    rare = once["value"].map(once["value"].value_counts()) < _TAIL
    if once.loc[rare, "value"].nunique() > 1:  # single cells would make chi-square meaningless
        once = once.assign(value=once["value"].mask(rare, OTHER))
        once = once.drop_duplicates(["group_id", "label", "value"])
    return pd.crosstab(once["label"], once["value"])


def association(table: pd.DataFrame) -> tuple[float, float]:
    """Cramer's V in [0, 1], without its bias (Bergsma 2013), and p of the chi-square test.

    Both are nan for a table of a single row or column.
    """
    from scipy import stats

    table = table.loc[table.sum(axis=1) > 0, table.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return math.nan, math.nan
    tested = stats.chi2_contingency(table.to_numpy(), correction=False)
    count = float(table.to_numpy().sum())
    height, width = table.shape
    by_chance = (height - 1) * (width - 1) / (count - 1)
    sides = [side - (side - 1) ** 2 / (count - 1) for side in (height, width)]
    square = max(0.0, float(tested.statistic) / count - by_chance) / (min(sides) - 1)
    return min(1.0, math.sqrt(square)), float(tested.pvalue)


def _torn(frame: pd.DataFrame, classes: Sequence[str]) -> Iterator[Finding]:
    for column in ("split", "fold"):
        inside = frame if column == "split" else frame[frame["fold"] >= 0]
        parts = inside.groupby("group_id")[column].nunique()
        torn = sorted(parts.index[parts > 1])
        if torn:
            text = f"{len(torn)} patients are in two {column}s or more; scores would be too good"
            yield Finding(
                FATAL, f"patient in two {column}s", text, len(torn), _of_groups(frame, torn)
            )


def _classes(frame: pd.DataFrame, classes: Sequence[str]) -> Iterator[Finding]:
    counts = frame["label"].value_counts().reindex(list(classes), fill_value=0)
    present = counts[counts > 0]
    if len(present) < 2:
        yield one_class(str(present.index[0]), len(frame))
        return
    absent = [name for name in classes if not counts[name]]
    if absent:
        text = f"no image of {', '.join(absent)}, which the task has"
        yield Finding(WARNING, "class without images", text, len(absent))
    for name, count in present.items():
        if count < _RARE * len(frame):
            text = f"{name} is {count / len(frame):.1%} of the images"
            yield Finding(NOTE, "rare class", text, int(count))


def _one_picture(frame: pd.DataFrame, classes: Sequence[str]) -> Iterator[Finding]:
    """A class whose every image holds the same pixels: an export of blanks, or of one file."""
    for name in classes:
        mine = frame[frame["label"] == name]
        if len(mine) > 2 and mine["sha256"].nunique() == 1 and mine["sha256"].iloc[0]:
            text = f"all {len(mine)} images of {name} have the same pixels; mend the release"
            yield Finding(FATAL, "class of one picture", text, len(mine), (tuple(mine.index[:4]),))


def _copies(frame: pd.DataFrame, classes: Sequence[str]) -> Iterator[Finding]:
    """Equal pixels under several patients; near-duplicates need the doctor's look."""
    again = frame[frame["sha256"].duplicated(keep=False) & (frame["sha256"] != "")]
    parts = again.groupby("sha256")
    for column, name, text in (
        ("group_id", "copies across patients", "have equal pixels and different patients"),
        ("label", "copies with two labels", "have equal pixels and different labels"),
        ("split", "copies across splits", "have equal pixels and different splits"),
    ):
        several = parts[column].nunique() > 1
        rows = again[again["sha256"].isin(several.index[several])]
        if len(rows):
            shown = tuple(tuple(part.index[:4]) for _, part in rows.groupby("sha256", sort=False))
            yield Finding(WARNING, name, f"{len(rows)} images {text}", len(rows), shown)


def _sites(frame: pd.DataFrame, classes: Sequence[str]) -> Iterator[Finding]:
    """Class told by site or by the make of the file: a model may learn that instead."""
    for column in SITES:
        table = cross_table(frame, column)
        if table.shape[1] < 2 or table.to_numpy().sum() < _FEW:
            continue
        value, p = association(table)
        if value >= STRONG and p < _SURE:
            share = table.div(table.sum(axis=0), axis=1)
            purest = (share.max(axis=0) * table.sum(axis=0).ge(_FEW / 2)).idxmax()
            text = (
                f"class and {column} go together (Cramer's V {value:.2f}, p {p:.1g}): "
                f"{share[purest].max():.1%} of {column} {purest} are {share[purest].idxmax()}"
            )
            yield Finding(WARNING, f"class by {column}", text, int(table.to_numpy().sum()))
        only = [
            (name, table.columns[np.argmax(row > 0)])
            for name, row in zip(table.index, table.to_numpy(), strict=True)
            if (row > 0).sum() == 1 and row.sum() >= _FEW / 2
        ]
        if only and p < _SURE:
            told = ", ".join(f"{name} from {site}" for name, site in only)
            text = f"a class comes from a single {column}: {told}"
            yield Finding(WARNING, f"class of one {column}", text, len(only))


def _splits(frame: pd.DataFrame, classes: Sequence[str]) -> Iterator[Finding]:
    present = [name for name in classes if (frame["label"] == name).any()]
    for split, rows in frame.groupby("split"):
        lacking = [name for name in present if not (rows["label"] == name).any()]
        if lacking:
            text = f"split {split} has no image of {', '.join(lacking)}"
            yield Finding(WARNING, "class missing in a split", text, len(lacking))


def _flags(frame: pd.DataFrame, classes: Sequence[str]) -> Iterator[Finding]:
    flags = frame["flags"].str.split(";")
    for flag in _KEPT:
        rows = frame.index[[flag in given for given in flags]]
        if len(rows):
            text = f"{len(rows)} images bear the flag {flag}; add it to --exclude to leave them out"
            yield Finding(WARNING, f"flag {flag}", text, len(rows), _each(rows))
    rows = frame.index[["wall_differs" in given for given in flags]]
    if len(rows):
        text = (
            f"in {len(rows)} images the chest wall is not where header or laterality have it; "
            "the pixels were followed, the laterality may be wrong"
        )
        yield Finding(NOTE, "laterality in doubt", text, len(rows), _each(rows))


def _sides(frame: pd.DataFrame, classes: Sequence[str]) -> Iterator[Finding]:
    """Two truths for one breast; what is a property of the image and not of the breast may vary."""
    rows = frame[(frame["laterality"] != "") & (frame["label_kind"] != "acquisition")]
    labels = rows.groupby(["group_id", "laterality"])["label"].nunique()
    twofold = labels.index[labels > 1]
    if len(twofold):
        text = f"{len(twofold)} breasts have images of two classes"
        mine = rows.set_index(["group_id", "laterality"]).index.isin(twofold)
        groups = rows[mine].groupby(["group_id", "laterality"])
        shown = tuple(tuple(part.index[:4]) for _, part in groups)
        yield Finding(NOTE, "breast with two labels", text, len(twofold), shown)


def _missing(frame: pd.DataFrame, classes: Sequence[str]) -> Iterator[Finding]:
    empty = {
        name: frame[name].isna() | frame[name].astype(str).isin(["", "nan"]) for name in _SPARSE
    }
    shares = {name: mine.mean() for name, mine in empty.items() if mine.any()}
    if shares:
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        text = f"columns that are empty, with their share of images: {told}"
        yield Finding(NOTE, "what is not known", text, len(shares))


def _of_groups(frame: pd.DataFrame, groups: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The first images of each of `groups`, a picture each."""
    shown = frame[frame["group_id"].isin(list(groups))].groupby("group_id")
    return tuple(tuple(part.index[:4]) for _, part in shown)


def _each(rows: "pd.Index[Any]") -> tuple[tuple[int, ...], ...]:
    return tuple((int(row),) for row in rows)
