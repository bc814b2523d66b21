"""Whether synthetic images are encoded as the real ones are, and how their plain statistics differ.

A generator keeps a summary of its real training images; the same summary of what it draws is held
against it. A wrong encoding (another depth or size, an inverted or halved grey scale, mirrored or
swapped images, one image over and over) is a mismatch; every other difference is a warning.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mammo.evaluation.encoding import encoding_rows
from mammo.evaluation.summary import BANDS

# Differences that matter to nobody, beside which chance is allowed for: grey in [0, 1], shares,
# and dB of power. With DEVIATIONS standard errors they let disjoint halves of real sets pass.
FLOORS = {
    "mean": 0.02,
    "background": 0.05,
    "quantile": 0.03,
    "border": 0.03,
    "side": 0.02,
    "left": 0.1,
    "spectrum": 1.0,
}
DEVIATIONS = 3.0
SPREAD = 0.3  # of the real spread
COLUMNS = ("quantity", "real", "synthetic", "difference", "tolerance", "verdict", "note")


def parity(real: Mapping[str, Any], synthetic: Mapping[str, Any]) -> pd.DataFrame:
    """Compare two summaries: a row a quantity, its verdict ok, warn or mismatch.

    The real side is weighted by the classes of the synthetic images, so that asking for one class
    alone is no difference.
    """
    rows = encoding_rows(real, weighted(real, synthetic), synthetic, weighted(synthetic, synthetic))
    if real["shape"] == synthetic["shape"]:
        rows += _quality_rows(real, synthetic)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.assign(note=table["note"].fillna(""))


def mismatch(table: pd.DataFrame) -> str:
    """What is wrong with the encoding, with its remedy, in one line; empty when nothing is."""
    found = table[table["verdict"] == "mismatch"]
    if not len(found):
        return ""
    first = found.iloc[0]
    more = f"; {len(found) - 1} further mismatches" if len(found) > 1 else ""
    values = f"real {first['real']:.4g}, synthetic {first['synthetic']:.4g}"
    return f"{first['note']} ({first['quantity']}: {values}{more})"


def headline(table: pd.DataFrame) -> dict[str, float]:
    """The few numbers to log of a table of `parity`."""
    at = table.set_index("quantity")["difference"]
    named = {
        "mean_difference": [name for name in at.index if _kind(name) == "mean"],
        "background_difference": [name for name in at.index if _kind(name) == "background"],
        "high_frequency_db": [
            name
            for name in at.index
            if _kind(name) == "spectrum" and int(name.rpartition("_")[2]) > BANDS * 2 // 3
        ],
    }
    verdicts = table["verdict"]
    return {
        "parity/mismatches": float((verdicts == "mismatch").sum()),
        "parity/warnings": float((verdicts == "warn").sum()),
        **{f"parity/{name}": float(at[which].mean()) for name, which in named.items() if which},
    }


def weighted(summary: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Means, histogram and layout over the classes of `summary`, in the shares of `like`.

    Where it lacks a class of `like` its own shares stand.
    """
    shares = _shares(summary, like)
    classes = summary["classes"]
    out: dict[str, Any] = {
        key: sum(share * np.asarray(classes[name][key], float) for name, share in shares.items())
        for key in ("histogram", "layout", "spread")
    }
    first = next(iter(shares))
    for key in ("mean", "sd"):
        out[key] = {
            quantity: float(sum(w * classes[name][key][quantity] for name, w in shares.items()))
            for quantity in classes[first][key]
        }
    return out


def _quality_rows(real: Mapping[str, Any], synthetic: Mapping[str, Any]) -> list[dict[str, Any]]:
    ours, theirs = weighted(real, synthetic), weighted(synthetic, synthetic)
    chance = _chance(real, synthetic)
    rows = []
    for quantity, value in ours["mean"].items():
        if real["kind"] == "mask" and _kind(quantity) != "mean":  # the area of a mask
            continue
        tolerance = FLOORS[_kind(quantity)] + DEVIATIONS * chance * ours["sd"][quantity]
        rows.append(_row(quantity, value, theirs["mean"][quantity], tolerance))
    if real["kind"] == "image" and all(
        each["images"] > 1 for each in synthetic["classes"].values()
    ):
        spread, other = float(ours["spread"]), float(theirs["spread"])
        rows.append(_row("spread", spread, other, (SPREAD + chance) * spread))
    return rows


def _row(quantity: str, real: float, synthetic: float, tolerance: float) -> dict[str, Any]:
    difference = synthetic - real
    verdict = "warn" if abs(difference) > tolerance else "ok"
    return dict(
        zip(COLUMNS, (quantity, real, synthetic, difference, tolerance, verdict), strict=False)
    )


def _chance(real: Mapping[str, Any], synthetic: Mapping[str, Any]) -> float:
    """Standard error of a difference of means, in standard deviations of an image.

    Images of a patient are alike, so patients are what is counted, on both sides.
    """
    shares = _shares(real, synthetic)
    lacking = shares.keys() - synthetic["classes"].keys()
    drawn = sum(each["patients"] for each in synthetic["classes"].values())
    total = 0.0
    for name, share in shares.items():
        there = drawn * share if lacking else synthetic["classes"][name]["patients"]
        total += share**2 * (1 / real["classes"][name]["patients"] + 1 / max(there, 1))
    return float(np.sqrt(total))


def _shares(summary: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, float]:
    known = like if like["classes"].keys() <= summary["classes"].keys() else summary
    counts = {name: each["images"] for name, each in known["classes"].items()}
    return {name: count / sum(counts.values()) for name, count in counts.items()}


def _kind(quantity: str) -> str:
    """mean of channel2/mean, quantile of quantile_99.9."""
    return quantity.rpartition("/")[2].partition("_")[0]
