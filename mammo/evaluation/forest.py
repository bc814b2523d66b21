"""The page of a comparison of several arms: a forest plot, verdicts and every metric."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from mammo.evaluation.arms import VERDICTS, Arms, told
from mammo.evaluation.figures import framed
from mammo.evaluation.palette import BLUE, GREEN, GREY, INK, RED
from mammo.evaluation.report import Report, Section, Tile

COLORS = dict(zip(VERDICTS, (GREEN, RED, BLUE, GREY), strict=True))
TEXT = (
    "Difference of the AUC by patient, pooled over folds, seeds averaged. superior and inferior: p "
    "of DeLong's test, Holm's correction over the arms, below 5 %; equivalent: two one-sided tests "
    "(Schuirmann 1987) within the margin, corrected likewise; inconclusive: neither. It is about "
    "these trained models and patients: a claim about their recipe needs p_folds as well, the "
    "corrected p over the folds, which knows that another training would differ."
)
RUNS = (
    "Means over the folds and seeds that an arm shares with the baseline. low, high and p are "
    "corrected for folds that share training patients (Nadeau and Bengio 2003); p_t and p_wilcoxon "
    "take every run for one apart, which is right for seeds of a hold-out alone. holm: corrected "
    "over the arms."
)


def forest_figure(pooled: pd.DataFrame, *, margin: float) -> Figure:
    """The difference of every arm with its 95 % interval, and the margin of equivalence."""
    figure, axes = framed(6.4, 1.6 + 0.5 * len(pooled))
    axes.axvspan(-margin, margin, color=GREY, alpha=0.15, lw=0)
    axes.axvline(0, color=INK, lw=1)
    for place, row in enumerate(pooled.itertuples()):
        at, color = len(pooled) - 1 - place, COLORS[row.verdict]
        axes.plot([row.low, row.high], [at, at], color=color, lw=2)
        axes.plot([row.auc], [at], "s", color=color, ms=7)
        axes.annotate(
            row.verdict,
            (row.high, at),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=color,
        )
    axes.set_yticks(range(len(pooled)), pooled["arm"].tolist()[::-1])
    axes.set_ylim(-0.7, len(pooled) - 0.3)
    axes.margins(x=0.25)  # room for the words
    axes.set(xlabel=f"AUC minus that of the baseline, 95 % (grey: within {margin:g})")
    return figure


def page(arms: Arms, *, margin: float, positive: str, provenance: Mapping[str, str]) -> Report:
    """The comparison as a report."""
    several = len(arms.pooled) > 1
    tiles, sentences = [], {}
    for row in arms.pooled.to_dict("records"):
        note = f"AUC {row['auc']:+.3f}, 95 % {row['low']:+.3f} to {row['high']:+.3f}"
        tiles.append(Tile(row["arm"], row["verdict"], note))
        sentences[row["arm"]] = told(row, margin=margin, several=several)
    forest = {"Difference to the baseline": forest_figure(arms.pooled, margin=margin)}
    said = pd.DataFrame({"arm": sentences.keys(), "what follows": sentences.values()})
    sections = [
        Section("Verdicts", TEXT, {"In words": said, "In numbers": arms.pooled}, forest),
        Section("Every metric over the runs", RUNS, {"Arms": arms.metrics, "Runs": arms.runs}),
    ]
    subtitle = f"{len(arms.pooled)} against one baseline; positive {positive}"
    return Report("Comparison", subtitle, tiles, sections, provenance)
