"""Calibration of probabilities: scores, calibration error, slope, and the temperature that helps.

Probabilities are of the positive class (N,) unless a function says (N, classes).
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mammo.errors import ConfigError

BINS = 15
BINNINGS = ("equal_mass", "equal_width")
SMALLEST = 1e-7  # a probability nearer to 0 or 1 counts as this: the resolution of float32 there
HOTTEST = 100.0
Floats = NDArray[np.float64]


def brier(positive: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared difference of `probability` (N,) in [0, 1] and outcome (N,) (Brier 1950)."""
    outcome = np.asarray(positive, np.float64)
    return float(np.mean((np.asarray(probability, np.float64) - outcome) ** 2))


def brier_parts(
    positive: ArrayLike, probability: ArrayLike, *, bins: int = BINS, binning: str = "equal_mass"
) -> dict[str, float]:
    """Reliability, resolution and uncertainty (Murphy 1973) over the bins of `reliability`.

    reliability - resolution + uncertainty is the Brier score of forecasts that are each the mean
    of their bin. That of the forecasts themselves differs by what lies within the bins.
    """
    table = reliability(positive, probability, bins=bins, binning=binning)
    shares = table["rows"] / table["rows"].sum()
    base = float((shares * table["observed"]).sum())
    return {
        "reliability": float((shares * (table["predicted"] - table["observed"]) ** 2).sum()),
        "resolution": float((shares * (table["observed"] - base) ** 2).sum()),
        "uncertainty": base * (1 - base),
    }


def losses(label_ids: ArrayLike, probability: ArrayLike) -> Floats:
    """Negative log probability (N,) of the true class, of `probability` (N, classes)."""
    probability = np.asarray(probability, np.float64)
    true = probability[np.arange(len(probability)), np.asarray(label_ids, int)]
    return np.asarray(-np.log(np.clip(true, SMALLEST, 1)))


def nll(label_ids: ArrayLike, probability: ArrayLike) -> float:
    """Mean negative log likelihood of `probability` (N, classes)."""
    return float(losses(label_ids, probability).mean())


def ece(
    positive: ArrayLike, probability: ArrayLike, *, bins: int = BINS, binning: str = "equal_mass"
) -> float:
    """Expected calibration error over bins: mean |observed - predicted| by row."""
    table = reliability(positive, probability, bins=bins, binning=binning)
    gap = (table["observed"] - table["predicted"]).abs()
    return float((gap * table["rows"]).sum() / table["rows"].sum())


def reliability(
    positive: ArrayLike, probability: ArrayLike, *, bins: int = BINS, binning: str = "equal_mass"
) -> pd.DataFrame:
    """Mean prediction, observed share and rows of each bin that has any.

    Bins of equal mass hold the same number of rows, but equal probabilities share a bin (that of
    their middle rank), so the order of rows never counts. Bins of equal width are [a, b), the
    last with its upper edge.
    """
    if binning not in BINNINGS:
        raise ConfigError(f"binning {binning!r} is not one of {', '.join(BINNINGS)}")
    probability = np.asarray(probability, np.float64)
    if binning == "equal_width":
        edges = np.arange(1, bins) / bins
        place = np.searchsorted(edges, probability, "right")
    else:
        ordered = np.sort(probability)
        first = np.searchsorted(ordered, probability, "left")
        last = np.searchsorted(ordered, probability, "right")
        place = (first + last) * bins // (2 * len(ordered))
    rows = pd.DataFrame(
        {"predicted": probability, "observed": np.asarray(positive, np.float64), "bin": place}
    )
    table = rows.groupby("bin").agg(
        predicted=("predicted", "mean"), observed=("observed", "mean"), rows=("observed", "size")
    )
    return table.reset_index(drop=True)


def logit(probability: ArrayLike) -> Floats:
    """Log odds (N,) of a probability."""
    inside = np.clip(np.asarray(probability, np.float64), SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def sigmoid(odds: Floats) -> Floats:
    """Probability (N,) of log odds, however large."""
    return np.asarray((1 + np.tanh(odds / 2)) / 2)


def slope_and_intercept(positive: ArrayLike, probability: ArrayLike) -> tuple[float, float]:
    """Calibration slope, and intercept at slope 1; 1 and 0 are right (Cox 1958).

    The slope is that of the outcome's logistic regression on the log odds (below 1: too extreme),
    the intercept how far all log odds lie too low (Van Calster et al. 2016). A nan slope: the
    outcomes are separated, so no finite one fits best. nan both without two kinds of outcome.
    """
    outcome, odds = np.asarray(positive, np.float64), logit(probability)
    if not 0 < outcome.mean() < 1:
        return math.nan, math.nan
    intercept = _newton(np.ones((len(odds), 1)), odds, outcome)[0]
    above, below = odds[outcome == 1], odds[outcome == 0]
    if below.max() <= above.min() or above.max() <= below.min():
        return math.nan, float(intercept)
    both = np.stack([np.ones(len(odds)), odds], axis=1)
    return float(_newton(both, np.zeros(len(odds)), outcome)[1]), float(intercept)


def level_at(positive: ArrayLike, odds: ArrayLike, slope: float) -> float:
    """Intercept that fits the log odds (N,) best at this slope; nan at a slope of nan."""
    outcome = np.asarray(positive, np.float64)
    if math.isnan(slope):
        return math.nan
    offset = slope * np.asarray(odds, np.float64)
    return float(_newton(np.ones((len(offset), 1)), offset, outcome)[0])


def newton_step(
    g0: Floats, g1: Floats, h00: Floats, h01: Floats, h11: Floats
) -> tuple[Floats, Floats]:
    """Change (draws,) of level and slope, from slopes g and curvatures h of the likelihood."""
    size = h00 * h11 - h01**2
    return (h11 * g0 - h01 * g1) / size, (h00 * g1 - h01 * g0) / size


def step_of_rows(
    weights: Floats, positive: ArrayLike, odds: Floats, levels: Floats, slopes: Floats
) -> tuple[Floats, Floats]:
    """As `newton_step`, from `levels` and `slopes` (draws,), rows (N,) under weights (draws, N)."""
    mean = sigmoid(levels[:, None] + slopes[:, None] * odds)
    curve, rest = weights * mean * (1 - mean), weights * (np.asarray(positive) - mean)
    return newton_step(
        rest.sum(axis=1), rest @ odds, curve.sum(axis=1), curve @ odds, curve @ odds**2
    )


def fit_temperature(label_ids: ArrayLike, probability: ArrayLike) -> float:
    """Temperature that makes `probability` (N, classes) fit best (Guo et al. 2017, section 4.2).

    1 where every row's true class is its most probable one: then the colder the better without
    end, and the rows say nothing. At most HOTTEST, which leaves little but the order.
    """
    from scipy.optimize import minimize_scalar

    probability = np.asarray(probability, np.float64)
    labels = np.asarray(label_ids, int)
    logs = _logs(probability)
    true = logs[np.arange(len(labels)), labels]
    if (true >= logs.max(axis=1)).all():
        return 1.0

    def loss(inverse: float) -> float:
        scaled = inverse * logs
        top = scaled.max(axis=1)
        total = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
        return float(np.mean(total - inverse * true))

    bounds = (1 / HOTTEST, HOTTEST)  # convex in the inverse of the temperature
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return float(1 / best.x)


def scaled(probability: ArrayLike, temperature: float) -> Floats:
    """`probability` (N, classes) with its log divided by `temperature`, summing to 1 again.

    Of two classes the order of rows stays, and with it the AUC; of any number the most probable.
    """
    logs = _logs(np.asarray(probability, np.float64)) / temperature
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _logs(probability: Floats) -> Floats:
    # far below SMALLEST: a bound that is felt would make equal what was not
    return np.asarray(np.log(np.maximum(probability, 1e-300)))


def _newton(features: Floats, offset: Floats, outcome: Floats) -> Floats:
    """Coefficients (F,) of the logistic regression on `features` (N, F), given that they exist."""

    def cost(weights: Floats) -> float:
        odds = features @ weights + offset
        return float(np.sum(np.logaddexp(0, odds) - outcome * odds))

    weights = np.zeros(features.shape[1])
    now = cost(weights)
    for _ in range(100):
        mean = sigmoid(features @ weights + offset)
        slope = features.T @ (outcome - mean)
        curve = (features * (mean * (1 - mean))[:, None]).T @ features
        step = np.linalg.lstsq(curve, slope, rcond=None)[0]
        while (then := cost(weights + step)) > now and np.abs(step).max() > 1e-12:
            step = step / 2  # a full step may overshoot where the odds are extreme
        weights, gain, now = weights + step, now - then, then
        if np.abs(step).max() < 1e-10 or gain < 0:
            break
    return weights
