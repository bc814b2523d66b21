"""Figures of how scores and uncertainty are distributed: strips of patients below each other."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from mammo.evaluation.palette import BLUE, CLASSES, GREEN, INK, ORANGE, RED
from mammo.evaluation.ranking import classes_of

Floats = NDArray[np.float64]
BINS = 30
MOST = 12  # strips of a figure that a phone still shows


def drawn(patients: pd.DataFrame, positive: str, *, threshold: float) -> dict[str, Figure]:
    """Every figure of this kind that `patients` have columns for, by name."""
    found = {
        "scores": score_figure(patients, positive, threshold=threshold),
        "scores_by_outcome": outcome_figure(patients, positive, threshold=threshold),
    }
    if patients["dataset"].nunique() > 1:
        found["scores_by_dataset"] = dataset_figure(patients, positive, threshold=threshold)
    if "uncertainty" in patients:
        found["uncertainty"] = uncertainty_figure(patients, positive, threshold=threshold)
    return found


def score_figure(
    patients: pd.DataFrame, positive: str, *, threshold: float | None = None
) -> Figure:
    """Distribution of the positive class's score for every class."""
    strips = {
        name: patients.loc[patients["label"] == name, f"score/{positive}"].to_numpy()
        for name in classes_of(patients)
    }
    return _scores(strips, positive, "Scores by true class", threshold=threshold)


def dataset_figure(
    patients: pd.DataFrame, positive: str, *, threshold: float | None = None
) -> Figure:
    """As `score_figure`, for each dataset apart; of many datasets those with most patients."""
    classes = classes_of(patients)
    largest = patients["dataset"].value_counts(sort=True).index[: max(1, MOST // len(classes))]
    strips, colours = {}, []
    for dataset in sorted(largest):
        for place, name in enumerate(classes):
            mine = patients[(patients["dataset"] == dataset) & (patients["label"] == name)]
            strips[f"{dataset}\n{name}"] = mine[f"score/{positive}"].to_numpy()
            colours += [CLASSES[place % len(CLASSES)]] if len(mine) else []
    title = "Scores by dataset and true class"
    return _scores(strips, positive, title, threshold=threshold, colours=colours)


def outcome_figure(patients: pd.DataFrame, positive: str, *, threshold: float) -> Figure:
    """Distribution of the score in each cell of the positive class's confusion."""
    score = patients[f"score/{positive}"].to_numpy()
    strips = {name: score[mine] for name, mine in _cells(patients, positive, threshold).items()}
    colours = [
        colour for colour, each in zip(_CELL_COLOURS, strips.values(), strict=True) if len(each)
    ]
    return _scores(strips, positive, "Scores by outcome", threshold=threshold, colours=colours)


def uncertainty_figure(patients: pd.DataFrame, positive: str, *, threshold: float) -> Figure:
    """Distribution of the column uncertainty in each cell of the positive class's confusion."""
    values = patients["uncertainty"].to_numpy()
    strips = {name: values[mine] for name, mine in _cells(patients, positive, threshold).items()}
    colours = [
        colour for colour, each in zip(_CELL_COLOURS, strips.values(), strict=True) if len(each)
    ]
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    figure, axes = _strips(strips, np.linspace(low, high, BINS + 1), colours=colours)
    axes.set(xlim=(low, high), xlabel="uncertainty (bar: median)")
    axes.set_title("Uncertainty by outcome")
    return figure


_CELL_COLOURS = (BLUE, RED, GREEN, ORANGE)


def _cells(patients: pd.DataFrame, positive: str, threshold: float) -> dict[str, NDArray[np.bool_]]:
    """Rows of each cell of the positive class's confusion at the threshold."""
    truth = (patients["label"] == positive).to_numpy()
    called = (patients[f"score/{positive}"] >= threshold).to_numpy()
    return {
        "true\npositive": truth & called,
        "false\nnegative": truth & ~called,
        "true\nnegative": ~truth & ~called,
        "false\npositive": ~truth & called,
    }


def _scores(
    strips: Mapping[str, Floats],
    positive: str,
    title: str,
    *,
    threshold: float | None,
    colours: list[str] | None = None,
) -> Figure:
    figure, axes = _strips(strips, np.linspace(0, 1, BINS + 1), colours=colours)
    if threshold is not None:
        axes.axvline(threshold, color=RED, lw=1.5, ls="--")
    axes.set(xlim=(0, 1), xlabel=f"score of {positive} (bar: median)")
    marked = "" if threshold is None else f" (dashed: threshold {threshold:.3f})"
    axes.set_title(f"{title}{marked}")
    return figure


def _strips(
    strips: Mapping[str, Floats], edges: Floats, *, colours: list[str] | None
) -> tuple[Figure, Axes]:
    """A histogram for each of `strips` that has values, each as high as it can be."""
    there = {name: values for name, values in strips.items() if len(values)}
    roomy = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(5.8, 1.5 + 0.9 * len(there)), layout=roomy, facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for place, values in enumerate(there.values()):
        height = np.histogram(values, edges)[0] / len(values)
        floor = len(there) - 1 - place
        top = floor + 0.85 * height / height.max()
        colour = (colours or CLASSES)[place % len(colours or CLASSES)]
        axes.stairs(top, edges, baseline=floor, fill=True, color=colour, alpha=0.75)
        axes.plot([np.median(values)] * 2, [floor, floor + 0.85], color=INK, lw=1.5)
    labels = [f"{name}\n(n = {len(values)})" for name, values in there.items()]
    axes.set_yticks([len(there) - 0.6 - place for place in range(len(there))], labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(0, len(there))
    return figure, axes
