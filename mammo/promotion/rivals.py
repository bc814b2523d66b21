"""The gates that compare a model with the one that holds the alias."""

import math
import re

import pandas as pd

from mammo.errors import DataError
from mammo.evaluation.comparison import compare
from mammo.evaluation.ranking import aggregate
from mammo.lineage import WITHDRAWN
from mammo.promotion.case import SPLIT, Case
from mammo.registrar import Evaluation, Version

NORMAL = 1.959964  # half the width of a 95 % interval, in standard errors


def champion(case: Case, *, margin: float, bound: str, draws: int) -> str:
    """The paired difference in AUC by patient is above the margin."""
    held = _held(case)
    if isinstance(held, str):
        return held
    ours, theirs = case.table(case.evaluation.run_id, "patients"), _patients_of(case, held)
    positive = case.data.classes.positive
    found = compare(ours, theirs, positive, draws=draws, seed=0)
    low, high = found.low, found.high
    if bound == "delong":
        low, high = (found.auc + sign * NORMAL * found.error for sign in (-1, 1))
    words = (
        f"AUC differs from that of {held.uri} by {found.auc:+.4f}, 95 % interval {low:+.4f} to "
        f"{high:+.4f} ({bound}, the same {ours['group_id'].nunique()} patients)"
    )
    if not low > margin:
        raise DataError(f"{words}; policy asks its lower end to be above {margin:g}")
    return words


def nearer(case: Case, *, margin: float) -> str:
    """The KID to the same real images is lower than that of the version that holds the alias."""
    held = _held(case)
    if isinstance(held, str):
        return held
    ours, theirs = case.evaluation.metrics, _evaluation_of(case, held, "synthetic").metrics
    shared = sorted(
        name for name in ours if re.fullmatch(r"fidelity/.+/kid", name) and name in theirs
    )
    if not shared:
        raise DataError(
            f"no extractor measured both it and {held.uri}; evaluate both with one --extractor"
        )
    reasons, told = [], []
    for name in shared:
        gain = theirs[name] - ours[name]
        spread = math.hypot(*(each.get(f"{name}_sd", math.nan) for each in (ours, theirs)))
        low = gain - NORMAL * spread
        words = f"{name} is {gain:+.3g} nearer than {held.uri}, at least {low:+.3g} (95 %)"
        told.append(words)
        if not low > margin:
            reasons.append(f"{words}; policy asks for more than {margin:g}")
    if reasons:
        raise DataError("; ".join(reasons))
    return ", ".join(told)


def _held(case: Case) -> Version | str:
    """The version that holds the alias, or why there is nothing to compare with."""
    held = case.champion
    if held is None:
        return f"no version holds {case.alias} yet: the floors alone count"
    if case.marks(held.run_id).get(WITHDRAWN):
        return f"{held.uri}, which holds {case.alias}, was withdrawn: the floors alone count"
    if held.tags.get("mammo.digest") == case.saved.digest:
        raise DataError(f"it holds {case.alias} already: it is {held.uri}")
    return held


def _patients_of(case: Case, held: Version) -> pd.DataFrame:
    """Scores of the holder for the same patients, from its own evaluation or as a baseline."""
    mine = case.evaluation
    if mine.inputs.get("baseline") == [held.run_id]:
        frame = case.table(mine.run_id, "predictions_baseline")
        how = mine.aggregate or str(case.saved.about["aggregate"])
        return aggregate(frame, case.data.classes.positive, how)
    return case.table(_evaluation_of(case, held, "model").run_id, "patients")


def _evaluation_of(case: Case, held: Version, setting: str) -> Evaluation:
    digest = held.tags.get("mammo.digest", "")
    for each in case.registrar.evaluations(held.run_id):
        same = each.data_digest == case.data.digest and each.model_digest in ("", digest)
        if same and setting in each.inputs and (setting != "model" or each.split == SPLIT):
            return each
    raise DataError(
        f"{held.uri}, which holds {case.alias}, was never evaluated on dataset {case.data.name} "
        f"({case.data.digest}), so nothing can be compared; {case.remedy(held.uri)}"
    )
