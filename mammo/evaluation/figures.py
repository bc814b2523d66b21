"""The figures of an evaluation, each a matplotlib Figure of its own (no global state)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from mammo.evaluation.calibration import reliability, scaled
from mammo.evaluation.curves import pr_band, precision_recall, roc, roc_band
from mammo.evaluation.palette import BLUE, GREY, INK, ORANGE, RED
from mammo.evaluation.ranking import auc, classes_of, pr_auc

Floats = NDArray[np.float64]
LEVELS = np.linspace(0, 1, 201)  # rates at which a band is drawn


def roc_figure(
    patients: pd.DataFrame,
    positive: str,
    *,
    interval: tuple[float, float],
    point: tuple[float, float] | None = None,
    baseline: pd.DataFrame | None = None,
    draws: int = 500,
    seed: int = 0,
) -> Figure:
    """ROC of the positive class against the rest with its 95 % band.

    `interval` is that of the AUC; `point` the (sensitivity, specificity) of the operating point;
    `baseline` the same patients scored by another model.
    """
    figure, axes = framed(5.2, 4.8)
    is_positive, score = patients["label"] == positive, patients[f"score/{positive}"]
    low, high = roc_band(patients, positive, LEVELS, draws=draws, seed=seed)
    axes.fill_between(LEVELS, low, high, color=BLUE, alpha=0.15, lw=0, label="95 % band")
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    if baseline is not None:
        against = baseline["label"] == positive, baseline[f"score/{positive}"]
        name = f"baseline, AUC {auc(*against):.3f}"
        axes.plot(*roc(*against), color=GREY, lw=1.5, ls="--", label=name)
    title = f"AUC {auc(is_positive, score):.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
    axes.plot(*roc(is_positive, score), color=BLUE, lw=2, label=title)
    if point is not None:
        sensitivity, specificity = point
        axes.plot(
            1 - specificity,
            sensitivity,
            "o",
            color=ORANGE,
            mec="white",
            ms=9,
            label="operating point",
        )
    _unit_square(axes)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity")
    axes.set_title(f"ROC, {positive} ({_counted(is_positive)})")
    axes.legend(loc="lower right", frameon=False)
    return figure


def pr_figure(patients: pd.DataFrame, positive: str, *, draws: int = 500, seed: int = 0) -> Figure:
    """Precision against recall of the positive class with its 95 % band and its floor."""
    figure, axes = framed(5.2, 4.8)
    low, high = pr_band(patients, positive, LEVELS[1:], draws=draws, seed=seed)
    axes.fill_between(LEVELS[1:], low, high, color=BLUE, alpha=0.15, lw=0, label="95 % band")
    is_positive, score = patients["label"] == positive, patients[f"score/{positive}"]
    prevalence = float(is_positive.mean())
    recall, precision = precision_recall(is_positive, score)
    steps = np.append(0, recall), np.append(precision[0], precision)
    area = f"average precision {pr_auc(is_positive, score):.3f}"
    axes.step(*steps, where="pre", color=BLUE, lw=2, label=area)
    axes.axhline(prevalence, color=GREY, lw=1, ls=":", label=f"prevalence {prevalence:.3f}")
    _unit_square(axes)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision")
    axes.set_title(f"Precision and recall, {positive} ({_counted(is_positive)})")
    axes.legend(loc="best", frameon=False)
    return figure


def confusion_figure(table: NDArray[np.int64], names: Sequence[str], *, title: str) -> Figure:
    """Counts of `table` (true class by row), shaded by the share of the true class."""
    side = 2.6 + 0.9 * len(names)
    figure, axes = framed(side + 0.4, side)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        dark = shares[row, column] > 0.55
        text = f"{count}\n{shares[row, column]:.0%}"
        colour = "white" if dark else INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=25 if len(names) > 3 else 0)
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="called", ylabel="truth")
    axes.set_title(title)
    return figure


def threshold_figure(patients: pd.DataFrame, positive: str, *, threshold: float) -> Figure:
    """Sensitivity and specificity of calling a score positive, at every threshold from 0 to 1."""
    figure, axes = framed(5.2, 4.0)
    is_positive = (patients["label"] == positive).to_numpy()
    score = patients[f"score/{positive}"].to_numpy()
    for side, colour, name in ((True, BLUE, "sensitivity"), (False, ORANGE, "specificity")):
        mine = np.sort(score[is_positive == side])
        # the share below a threshold rises after each score: a step at it
        below = np.arange(len(mine) + 1) / len(mine)
        at = np.concatenate([[0], mine, [1]])
        share = np.append(below, below[-1])
        axes.step(at, 1 - share if side else share, where="post", color=colour, lw=2, label=name)
    axes.axvline(threshold, color=RED, lw=1.5, ls="--", label=f"threshold {threshold:.3f}")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=f"threshold of {positive}")
    axes.grid(color="#e5e7eb", lw=0.8)
    axes.set_title("Sensitivity and specificity")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none")
    return figure


def reliability_figure(
    patients: pd.DataFrame,
    positive: str,
    metrics: Mapping[str, float],
    *,
    temperature: float = 0.0,
) -> Figure:
    """Observed share against predicted probability in bins of equal mass, with Wilson intervals.

    With a temperature also what the scaled scores would show; `metrics` has brier and ece.
    """
    figure, axes = framed(5.2, 4.8)
    is_positive, classes = patients["label"] == positive, classes_of(patients)
    table = reliability(is_positive, patients[f"score/{positive}"])
    low, high = _wilson(table["observed"].to_numpy(), table["rows"].to_numpy())
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":", label="calibrated")
    if temperature:
        scores = scaled(patients[[f"score/{name}" for name in classes]], temperature)
        other = reliability(is_positive, scores[:, classes.index(positive)])
        label = f"at temperature {temperature:.3g}, ECE {metrics['ece_scaled']:.3f}"
        points = other["predicted"], other["observed"]
        axes.plot(*points, "s--", color=ORANGE, lw=1.5, ms=4, label=label)
    axes.vlines(table["predicted"], low, high, color=BLUE, alpha=0.35, lw=2)
    label = f"{len(table)} bins of equal mass, 95 %"
    axes.plot(table["predicted"], table["observed"], "o-", color=BLUE, lw=1.5, ms=5, label=label)
    _unit_square(axes)
    axes.set(xlabel=f"predicted probability of {positive}", ylabel="observed share")
    axes.set_title(f"Calibration: Brier {metrics['brier']:.3f}, ECE {metrics['ece']:.3f}")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none")
    return figure


def fidelity_figure(values: dict[str, dict[str, float]]) -> Figure:
    """Each distance of `values` beside its floor: {name: {value, sd, floor, floor_sd}}."""
    roomy = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(2.9 * len(values) + 0.6, 3.6), layout=roomy, facecolor="white")
    for place, (name, each) in enumerate(values.items()):
        axes = figure.add_subplot(1, len(values), place + 1)
        heights, errors = [each["value"], each["floor"]], [each["sd"], each["floor_sd"]]
        axes.bar([0, 1], heights, yerr=errors, color=[BLUE, GREY], width=0.6, capsize=4)
        for x, height in enumerate(heights):
            where = max(height, 0) + errors[x]
            axes.annotate(
                f"{height:.3g}", (x, where), (0, 3), textcoords="offset points", ha="center"
            )
        axes.set_xticks([0, 1], ["synthetic\nvs real", "real\nvs real"])
        axes.margins(y=0.15)
        axes.axhline(0, color=INK, lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(name, fontsize=10)
    return figure


def grid_figure(rows: Sequence[tuple[str, NDArray[np.float32]]]) -> Figure:
    """Labelled rows of images: `rows` holds (title, images (n, C, H, W) in [0, 1]).

    The first channel is shown, and every image on the same scale of grey.
    """
    columns = max(len(images) for _, images in rows)
    height, width = rows[0][1].shape[2:]
    cell = 1.25
    size = (cell * columns * width / height + 0.35, cell * len(rows) + 0.1)
    close = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=size, layout=close, facecolor="white")
    cells: Any = figure.subplots(len(rows), columns, squeeze=False)
    for row, (title, images) in enumerate(rows):
        cells[row, 0].set_ylabel(title, fontsize=9)
        for column, axes in enumerate(cells[row]):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column < len(images):
                axes.imshow(images[column, 0], cmap="gray", vmin=0, vmax=1)
    return figure


def framed(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches with one pair of axes, as all of these look."""
    roomy = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, height), layout=roomy, facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10)
    return figure, axes


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_axisbelow(True)
    axes.grid(color="#e5e7eb", lw=0.8)


def _counted(is_positive: pd.Series) -> str:
    return f"{int(is_positive.sum())} of {len(is_positive)}"


def _wilson(share: Floats, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """95 % interval of a share of `rows` (Wilson 1927)."""
    z2 = 1.96**2
    centre = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = np.sqrt(share * (1 - share) / rows + z2 / (4 * rows**2)) * 1.96 / (1 + z2 / rows)
    return centre - half, centre + half
