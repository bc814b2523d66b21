"""Decision curves: what acting on a probability gains over acting on everybody or on nobody."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mammo.evaluation.bootstrap import patient_strata, patient_weights
from mammo.evaluation.calibration import scaled
from mammo.evaluation.figures import framed
from mammo.evaluation.palette import BLUE, GREY, ORANGE
from mammo.evaluation.ranking import classes_of

Floats = NDArray[np.float64]
THRESHOLDS = np.arange(1, 100) / 100  # probabilities from which on somebody would act


def net_benefit(
    positive: ArrayLike, probability: ArrayLike, thresholds: Floats = THRESHOLDS
) -> Floats:
    """Net benefit (thresholds,) of acting from each threshold on (Vickers and Elkin 2006).

    The share of true positives less that of false positives times the odds of the threshold: the
    gain in true positives a row when an alarm costs what the threshold says it may.
    """
    positive, probability = np.asarray(positive, bool), np.asarray(probability, np.float64)
    gains = np.where(positive, 1.0, -_odds(thresholds)[:, None])
    return np.asarray((gains * (probability >= thresholds[:, None])).mean(axis=1))


def decision_curve(
    patients: pd.DataFrame,
    positive: str,
    *,
    temperature: float = 0.0,
    draws: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """A row a threshold: net benefit of the model with its 95 % interval, of all and of none.

    With a temperature also that of the scaled scores. The prevalence is that of `patients`.
    """
    truth, classes = (patients["label"] == positive).to_numpy(bool), classes_of(patients)
    score = patients[f"score/{positive}"].to_numpy(np.float64)
    low, high = _band(patients, truth, score, draws=draws, seed=seed)
    found = {"threshold": THRESHOLDS, "model": net_benefit(truth, score), "low": low, "high": high}
    if temperature:
        scores = scaled(patients[[f"score/{name}" for name in classes]], temperature)
        found["scaled"] = net_benefit(truth, scores[:, classes.index(positive)])
    found["all"] = net_benefit(truth, np.ones(len(truth)))
    return pd.DataFrame(found).assign(none=0.0)


def decision_figure(curve: pd.DataFrame, positive: str) -> Figure:
    """Net benefit against the threshold probability, of a table of `decision_curve`."""
    figure, axes = framed(5.2, 4.0)
    at = curve["threshold"]
    axes.fill_between(at, curve["low"], curve["high"], color=BLUE, alpha=0.15, lw=0)
    axes.plot(at, curve["all"], color=GREY, lw=1.5, ls="--", label="act on all")
    axes.axhline(0, color=GREY, lw=1.5, ls=":", label="act on none")
    if "scaled" in curve:
        axes.plot(at, curve["scaled"], color=ORANGE, lw=1.5, ls="--", label="at its temperature")
    axes.plot(at, curve["model"], color=BLUE, lw=2, label="model, 95 % band")
    top = max(curve["high"].max(), curve["all"].max(), 1e-3)
    axes.set(xlim=(0, 1), ylim=(-0.35 * top, 1.08 * top))  # below it all curves only fall
    axes.set(xlabel=f"probability of {positive} from which on to act", ylabel="net benefit")
    axes.grid(color="#e5e7eb", lw=0.8)
    axes.set_title(f"Decision curve, {positive}")
    axes.legend(loc="upper right", framealpha=0.9, edgecolor="none")
    return figure


def _band(
    patients: pd.DataFrame, truth: NDArray[np.bool_], score: Floats, *, draws: int, seed: int
) -> tuple[Floats, Floats]:
    """Pointwise 95 % interval of the net benefit; patients are drawn as for the AUC."""
    codes, strata = patient_strata(patients)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    gains = np.where(truth[:, None], 1.0, -_odds(THRESHOLDS)) * (score[:, None] >= THRESHOLDS)
    sums = np.add.reduceat(gains[order], starts, axis=0)  # (patients, thresholds)
    rows = np.bincount(codes)
    drawn = [
        weights @ sums / (weights @ rows)[:, None]
        for weights in patient_weights(strata, rows=len(codes), draws=draws, seed=seed)
    ]
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975], axis=0)
    return low, high


def _odds(thresholds: Floats) -> Floats:
    return np.asarray(thresholds / (1 - thresholds))
