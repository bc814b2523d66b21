"""What a verdict, its groups and its comparison put into the report: numbers, tables and words."""

import math

import pandas as pd
from matplotlib.figure import Figure

from mammo.data.dataset import Dataset
from mammo.evaluation import groups
from mammo.evaluation.calibration import BINS
from mammo.evaluation.comparison import Comparison
from mammo.evaluation.evidence import Evidence
from mammo.evaluation.report import Section, Tile
from mammo.evaluation.verdict import Verdict, detectable_difference

CAPTIONS = {
    "roc": "Sensitivity against 1 − specificity; patients are drawn for the band",
    "precision_recall": "Precision against recall; prevalence is what guessing gets",
    "confusion": "Patients by true class and by what they were called",
    "scores": "Scores of patients by their true class",
    "scores_by_dataset": "Scores of patients by their dataset and true class",
    "scores_by_outcome": "Scores of patients by what their call came to",
    "thresholds": "Sensitivity and specificity at every threshold",
    "reliability": "Observed share against predicted probability",
    "decision": "Net benefit a patient at the prevalence here, by when one would act",
    "uncertainty": "The model's uncertainty by what the call came to",
}
SECTION = (
    "Numbers are by patient unless they say otherwise. The thresholds were {source}, never on the "
    "rows they are judged by. PPV and NPV are those at a prevalence of {prevalence:.3g}; among the "
    "patients here it is {observed:.3g}."
)
PARTS = (
    " The Brier score of {brier:.3g} is a reliability of {brier_reliability:.3g} (0 is calibrated) "
    "less a resolution of {brier_resolution:.3g} plus an uncertainty of {brier_uncertainty:.3g}, "
    "which is that of the prevalence, over {bins} bins of equal mass (Murphy 1973); {rest:+.2g} "
    "lies within the bins."
)
SCALED = (
    " The temperature of {temperature:.3g} that fits the validation patients best divides the log "
    "of every score (names with scaled): the calibration error goes from {ece:.3g} to "
    "{ece_scaled:.3g} and the negative log likelihood from {nll:.3g} to {nll_scaled:.3g}; the "
    "order of two classes' scores, and so the AUC, stays as it is."
)


def of_verdict(
    verdict: Verdict,
    data: Dataset,
    drawn: dict[str, Figure],
    *,
    split: str,
    source: str,
    prevalence: float,
) -> Evidence:
    """Metrics, tables, tiles and the section of a verdict."""
    positive, values = data.classes.positive, verdict.metrics
    several = len(data.classes.names) > 2
    interval = f"95 % {values['auc_low']:.3f} to {values['auc_high']:.3f}"
    counted = f"{values['patients']:.0f} patients"
    rule = "macro mean, one against the rest" if several else f"of {positive}"
    point = f"threshold {verdict.outcome.threshold:.3f}, {source}"
    tiles = [
        Tile(f"AUC ({split})", f"{values['auc']:.3f}", f"{interval}, {counted}, {rule}"),
        _rate("sensitivity", values, point),
        _rate("specificity", values, "at the same threshold"),
    ]
    observed = float((verdict.patients["label"] == positive).mean())
    text = SECTION.format(source=source, prevalence=prevalence, observed=observed)
    text += _parts_of_brier(values)
    if "temperature" in values:
        text += SCALED.format(**values)
    metrics = {f"{split}/{name}": value for name, value in values.items()}
    names = list(data.classes.names)
    table = pd.DataFrame(verdict.confusion, columns=[f"called {name}" for name in names])
    table.insert(0, "truth", names)
    counts = groups.counts_by_class(verdict.patients)
    shown = {
        "Metrics with 95 % intervals": side_by_side(verdict.table),
        "Operating points": verdict.operating_points,
        "Each class against the rest": verdict.classes,
        "Calls by dataset and class": counts,
    }
    captions = {CAPTIONS[name]: figure for name, figure in drawn.items()}
    return Evidence(
        metrics=metrics,
        headline=[f"{split}/{name}" for name in ("auc", "auc_low", "auc_high", "patients")],
        tiles=tiles,
        sections=[Section("Classification", text, shown, captions, verdict.notes)],
        figures=drawn,
        tables={
            "metrics": verdict.table,
            "patients": verdict.patients,
            "operating_points": verdict.operating_points,
            "confusion": table,
            "classes": verdict.classes,
            "counts_by_dataset": counts,
        },
    )


def of_groups(table: pd.DataFrame, differ: pd.DataFrame, *, split: str, least: int) -> Evidence:
    """The same model in each group of images."""
    text = (
        "The same patients by groups of their images, at the same threshold. A difference between "
        f"groups may be one of patients. What would rest on fewer than {least} patients of a side "
        "is left out; p is of one AUC in all groups of a column."
    )
    shown = {"Groups": table} | ({"Does the AUC differ?": differ} if len(differ) else {})
    return Evidence(
        metrics=groups.metrics_of(table, split),
        sections=[Section("By group", text, shown)],
        tables={"groups": table} | ({"groups_differ": differ} if len(differ) else {}),
    )


def of_comparison(
    found: Comparison, table: pd.DataFrame, mcnemar: dict[str, float], positive: str
) -> Evidence:
    """The difference to a baseline with its interval, tests and smallest detectable size.

    `table` has every metric of both (comparison.differences), `mcnemar` the p of the two rates.
    """
    metrics = {
        "delta/auc": found.auc,
        "delta/auc_low": found.low,
        "delta/auc_high": found.high,
        "delta/p": found.p,
    }
    p = {"auc": found.p, **mcnemar}
    table = table.assign(p=[p.get(name, math.nan) for name in table["metric"]])
    text = (
        "Both models scored the same patients, drawn together in the bootstrap, each at its own "
        f"thresholds. p of the AUC is DeLong's two-sided test by patient, of sensitivity and "
        f"specificity for {positive} McNemar's exact test; none is corrected for being several."
    )
    least = detectable_difference(found.low, found.high)
    if least > 0:
        text += (
            f" With these patients a true difference of {least:.3f} in AUC would be found with "
            "80 % power; a smaller one will usually be missed."
        )
    told = f"p = {found.p:.2g}" if found.p >= 0.001 else "p < 0.001"
    note = f"95 % {found.low:+.3f} to {found.high:+.3f}, {told}"
    return Evidence(
        metrics=metrics,
        headline=list(metrics),
        tiles=[Tile("AUC minus baseline", f"{found.auc:+.3f}", note)],
        sections=[Section("Against the baseline", text, {"Every metric, paired": table})],
        tables={"comparison": table},
    )


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """A row a metric and a column a level of `table` (verdict.COLUMNS), each with its interval."""
    columns = {}
    for level, rows in table.groupby("level", sort=False):
        count = f"{rows['rows'].iloc[0]:.0f}"
        columns[f"by {level} (n = {count})"] = pd.Series(
            [
                f"{value:.3g}" if math.isnan(low) else f"{value:.3g} ({low:.3g} to {high:.3g})"
                for value, low, high in zip(rows["value"], rows["low"], rows["high"], strict=True)
            ],
            index=rows["metric"],
        )
    wide = pd.DataFrame(columns).reindex(table["metric"].drop_duplicates())
    return wide.fillna("").reset_index()


def _parts_of_brier(values: dict[str, float]) -> str:
    parts = values["brier_reliability"] - values["brier_resolution"] + values["brier_uncertainty"]
    return PARTS.format(**values, bins=BINS, rest=values["brier"] - parts)


def _rate(name: str, values: dict[str, float], note: str) -> Tile:
    ends = f"95 % {values[f'{name}_low']:.3f} to {values[f'{name}_high']:.3f}"
    return Tile(name.capitalize(), f"{values[name]:.3f}", f"{ends}, {note}")
