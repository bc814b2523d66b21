"""The doctor's page: findings with the pictures that show them, in one HTML file."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mammo.data.checks import FATAL, NOTE, SEVERITIES, WARNING, Finding
from mammo.doctor.examination import Examination
from mammo.doctor.probe import FIRES, Probe
from mammo.evaluation.report import Report, Section, Tile, render

_SHOWN = 12  # pictures of a finding; clusters are shown whole as far as they fit
_COLUMNS = 6
_INCHES = 1.75  # side of a picture

# On paper a picture is not torn, and a heading stays with what follows.
_PRINT = "@media print{figure,tr{break-inside:avoid}h2,h3{break-after:avoid}}"
_TITLES = {FATAL: "Fatal", WARNING: "Warning", NOTE: "Note"}


def page(found: Examination) -> str:
    """The whole page as HTML; pictures are inside, ids are hashed, no path is named."""
    data = found.data
    real = data.manifest[~data.manifest["is_synthetic"]]
    counts = {name: sum(each.severity == name for each in found.findings) for name in SEVERITIES}
    tables = dict(found.tables)
    summary = tables.pop("Findings")
    overview = Section(
        "Findings",
        "Fatal findings make any result wrong, warnings may, notes are good to know.",
        tables={f"{len(summary)} findings, the gravest first": summary} if len(summary) else {},
    )
    about: Mapping[str, str] = {
        "dataset": data.name,
        "digest": data.digest,
        "task": f"{data.classes.task} ({', '.join(data.classes.names)})",
        "label kind": data.classes.label_kind,
        "crop": str(data.about.get("crop", "")),
        "intensity": str(data.about.get("intensity", {}).get("policy", "")),
        "stored": " x ".join(map(str, data.shape)),
        "compared with": found.other.digest if found.other is not None else "nothing",
        "examined in": f"{found.seconds:.0f} s",
    }
    html = render(
        Report(
            title=f"Doctor's report of {data.name}",
            subtitle="Pictures of patients are on this page: keep it where the data may be kept.",
            tiles=(
                Tile(
                    "images", str(len(real)), f"in {real['group_id'].nunique()} groups (patients)"
                ),
                Tile("fatal", str(counts[FATAL])),
                Tile("warnings", str(counts[WARNING])),
                Tile("notes", str(counts[NOTE])),
            ),
            sections=(
                overview,
                *(_section(found, finding) for finding in found.findings if finding.rows),
                _probes(found.probes),
                Section("Tables", tables={name: _short(each) for name, each in tables.items()}),
            ),
            provenance=about,
        )
    )
    return html.replace("</style>", f"{_PRINT}</style>", 1)


def probe_figure(probes: list[Probe]) -> Figure:
    """AUC of each probe with its interval, and the bound above which it is a confound."""
    measured = [each for each in probes if not math.isnan(each.auc)]
    figure = Figure(figsize=(7, 0.8 + 0.5 * len(measured)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(measured))[::-1]
    axes.axvline(0.5, color="#9aa3af", linewidth=1)
    axes.axvline(FIRES, color="#b45309", linewidth=1, linestyle="--")
    for place, each in zip(places, measured, strict=True):
        fires = each.low > FIRES
        color = "#b45309" if fires else "#1f6f8b"
        axes.plot([each.low, each.high], [place, place], color=color, linewidth=2)
        axes.plot([each.auc], [place], "o", color=color)
    axes.set_yticks(places, [f"{each.name} ({each.features})" for each in measured])
    axes.set_xlim(min([0.4, *(each.low for each in measured)]), 1.0)
    axes.set_xlabel("AUC of the class, by patients not trained on; 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _section(found: Examination, finding: Finding) -> Section:
    shown: list[tuple[int, ...]] = []
    for rows in finding.rows:
        if sum(map(len, shown)) + len(rows) > _SHOWN:
            break
        shown.append(rows)
    pictures = _pictures(found, shown or [finding.rows[0][:_SHOWN]])
    rest = len(finding.rows) - len(shown)
    caption = f"{rest} more are in doctor.json" if rest > 0 else "all of them"
    title = f"{_TITLES[finding.severity]}: {finding.name}"
    return Section(title, finding.text, figures={caption: pictures})


def _pictures(found: Examination, shown: list[tuple[int, ...]]) -> Figure:
    """The pictures of `shown`, those that belong together side by side under one letter."""
    cells = [(letter, row) for letter, rows in enumerate(shown) for row in rows]
    lines = -(-len(cells) // _COLUMNS)
    figure = Figure(figsize=(_INCHES * _COLUMNS, (_INCHES + 0.45) * lines), layout="constrained")
    grid = figure.subplots(lines, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    together = any(len(rows) > 1 for rows in shown)
    for place, (letter, row) in enumerate(cells):
        axes = grid[place // _COLUMNS, place % _COLUMNS]
        picture, told = _picture(found, row)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        name = f"{chr(65 + letter % 26)}: " if together else ""
        axes.set_title(f"{name}{told}", fontsize=7)
    return figure


def _picture(found: Examination, row: int) -> tuple[NDArray[np.float32], str]:
    data = found.data
    if row >= len(data):
        assert found.other is not None
        data, row = found.other, row - len(found.data)
    line = data.manifest.iloc[row]
    place = " ".join(filter(None, [line["laterality"], line["view"], line["split"]]))
    other = f"{data.name}\n" if data is not found.data else ""
    told = f"{other}{line['label']}\n{place}\npatient {line['group_id'][:8]}"
    return data.images([row])[0, 0], told


def _probes(probes: list[Probe]) -> Section:
    text = (
        "Simple models that never see the breast as such, trained and scored on different "
        "patients. Metadata: site, file and number of images. Background: what lies outside the "
        "breast. Thumbnails: 16 x 16 pixels, where real signal may be. A probe whose interval "
        f"lies above {FIRES} tells the class by other means than a lesion."
    )
    measured = any(not math.isnan(each.auc) for each in probes)
    figures = {"number of features in brackets": probe_figure(probes)} if measured else {}
    return Section("Probes for shortcuts", text, figures=figures)


def _short(table: pd.DataFrame, limit: int = 12) -> pd.DataFrame:
    """A table that fits on paper: the first columns and rows."""
    return table.iloc[: limit * 3, : limit + 1]
