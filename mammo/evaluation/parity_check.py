"""The parity check of a sampled dataset against what its generator keeps of its real images."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mammo.data.dataset import Dataset
from mammo.errors import DataError
from mammo.evaluation.parity import headline, mismatch, parity
from mammo.evaluation.summary import some_rows, summarize
from mammo.run import Run

LOG = logging.getLogger("mammo")
UNTOLD = ""  # the one class of a generator that is told none
SHOWN = 4  # warnings that the log names


def real_summary(
    data: Dataset, rows: np.ndarray[Any, np.dtype[np.int64]], *, masks: bool, told: bool
) -> dict[str, Any]:
    """The summary of real training `rows`, by class where the generator is `told` of classes.

    Of a generator of `masks` the masks are what it draws.
    """
    frame = data.manifest.iloc[rows]
    labels = frame["label"].to_numpy(str) if told else np.full(len(rows), UNTOLD)
    chosen = some_rows(labels, data.shape)
    stored = data.raw(rows[chosen])
    if masks:
        top = stored.dtype.type(np.iinfo(stored.dtype).max)
        stored = (data.masks(rows[chosen]) > 0).astype(stored.dtype) * top
    patients = frame["group_id"].to_numpy(str)[chosen]
    return summarize(stored, labels[chosen], patients, kind="mask" if masks else "image")


def check_parity(
    tracked: Run, about: Mapping[str, Any], drawn: Dataset, *, on_mismatch: str = "error"
) -> dict[str, float]:
    """Hold `drawn` against the real images of the model.json `about`; metrics to log.

    Logs tables/parity.csv and figures/parity.png. DataError when the encoding differs, unless
    `on_mismatch` is warn.
    """
    real = about.get("real_summary")
    if not real:
        LOG.warning("parity: this generator keeps no summary of its real images; train it again")
        return {}
    told = set(real["classes"]) != {UNTOLD}
    labels = drawn.manifest["label"].to_numpy(str) if told else np.full(len(drawn), UNTOLD)
    rows = some_rows(labels, drawn.shape)
    names = [str(row) for row in rows]  # each synthetic image is on its own
    synthetic = summarize(drawn.raw(rows), labels[rows], names, kind=real["kind"])
    table = parity(real, synthetic)
    tracked.table("parity", table)
    if real["shape"] == synthetic["shape"] and real["kind"] == "image":
        from mammo.evaluation.parity_figure import parity_figure

        tracked.figure("parity", parity_figure(real, synthetic))
    _tell(table)
    wrong = mismatch(table)
    if wrong and on_mismatch == "error":
        tracked.metrics(headline(table))
        raise DataError(
            f"the synthetic images are not encoded as the real ones: {wrong}; on_mismatch=warn "
            "keeps them as they are"
        )
    return headline(table)


def _tell(table: pd.DataFrame) -> None:
    found = table[table["verdict"] == "mismatch"]
    for note in found["note"]:
        LOG.warning("parity: %s", note)
    warned = table[table["verdict"] == "warn"]
    beyond = (warned["difference"].abs() / warned["tolerance"]).sort_values(ascending=False)
    worst = [
        f"{each.quantity} {each.synthetic:.3g} instead of {each.real:.3g}"
        for each in warned.loc[beyond.index[:SHOWN]].itertuples()
    ]
    if worst:
        checked = int(table["tolerance"].notna().sum())
        LOG.warning(
            "parity: %d of %d quantities differ from the real images: %s (tables/parity.csv)",
            len(warned), checked, ", ".join(worst),
        )  # fmt: skip
