"""Several recipes against one baseline: corrected for being several, each with its verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mammo.evaluation import families
from mammo.evaluation.comparison import detectable, equivalence_p, holm

LEVEL = 0.05
VERDICTS = ("superior", "inferior", "equivalent", "inconclusive")
TESTS = ("p", "p_t", "p_wilcoxon")


@dataclass(frozen=True)
class Arms:
    """What several arms are worth against their baseline."""

    runs: pd.DataFrame  # families.METRICS of every run, by arm
    metrics: pd.DataFrame  # families.COLUMNS by arm, each p with its Holm correction over the arms
    pooled: pd.DataFrame  # AUC of the pooled patients: a row an arm, with its verdict


def against_baseline(
    arms: Mapping[str, pd.DataFrame],
    baseline: pd.DataFrame,
    positive: str,
    how: str,
    *,
    margin: float,
    draws: int,
    seed: int,
) -> Arms:
    """Compare the predictions of each arm with those of the baseline, over what both have run."""
    theirs = families.of_runs(baseline, positive, how)
    runs, metrics, rows = [theirs.assign(arm="baseline")], [], []
    for name, predictions in arms.items():
        mine = families.of_runs(predictions, positive, how)
        runs.append(mine.assign(arm=name))
        table = families.paired(mine, theirs)
        metrics.append(table.assign(arm=name))
        keys = mine.merge(theirs, on=families.RUN)[families.RUN]
        ours, others = (each.merge(keys, on=families.RUN) for each in (predictions, baseline))
        found = families.pooled(ours, others, positive, how, draws=draws, seed=seed)
        rows.append(
            {
                "arm": name,
                "pairs": len(keys),
                "patients": ours["group_id"].nunique(),
                "auc": found.auc,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "p_equivalent": equivalence_p(found.auc, found.error, margin),
                "p_folds": float(table.set_index("metric")["p"].get("auc", np.nan)),
                "detectable": detectable(found.error, tests=len(arms)),
            }
        )
    pooled = _corrected(pd.DataFrame(rows), ("p", "p_equivalent"))
    pooled["verdict"] = [
        verdict(each.auc, each.p_holm, each.p_equivalent_holm) for each in pooled.itertuples()
    ]
    table = pd.concat(metrics, ignore_index=True)
    parts = [_corrected(part, TESTS) for _, part in table.groupby("metric", sort=False)]
    order = ["arm", *[name for name in parts[0] if name != "arm"]]
    together = pd.concat(parts).sort_index()[order]
    return Arms(pd.concat(runs, ignore_index=True), together, pooled)


def verdict(difference: float, p: float, p_equivalent: float, *, level: float = LEVEL) -> str:
    """One of VERDICTS by corrected p values; a difference that is shown counts, however small."""
    if p < level:
        return VERDICTS[0] if difference > 0 else VERDICTS[1]
    return VERDICTS[2] if p_equivalent < level else VERDICTS[3]


def told(row: Mapping[str, Any], *, margin: float, several: bool) -> str:
    """The verdict of a row of Arms.pooled in a sentence."""
    corrected = f" (Holm {row['p_holm']:.2g})" if several else ""
    folds = f", over the folds p = {row['p_folds']:.2g}" if row["p_folds"] >= 0 else ""
    words = (
        f"AUC of the pooled patients: {row['auc']:+.4f} (95 % {row['low']:+.4f} to "
        f"{row['high']:+.4f}), p = {row['p']:.2g}{corrected}{folds}: {row['verdict']}"
    )
    if row["verdict"] == "inconclusive":
        return f"{words}; {_missed(row['detectable'])}"
    if row["verdict"] == "equivalent":
        return f"{words} within {margin:g}, p = {row['p_equivalent_holm']:.2g}"
    small = row["p_equivalent_holm"] < LEVEL
    return f"{words}, but by less than the margin of {margin:g}" if small else words


def _missed(least: float) -> str:
    if not np.isfinite(least):
        return "too few patients to say anything"
    return f"a difference below {least:.3f} would usually be missed (80 % power)"


def _corrected(table: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """`table` with a column <name>_holm for each p of its rows."""
    return table.assign(**{f"{name}_holm": holm(table[name].to_numpy(float)) for name in names})
