"""Patients in the groups that a partition shares alike: by label, and finer on request."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LABEL = ("label",)


def by_label(
    frame: pd.DataFrame,
    *,
    positive: str,
    stratify_by: Sequence[str],
    least: int,
    rng: np.random.Generator,
) -> Iterator[tuple[str, list[list[str]]]]:
    """Each label, by name, with the patients of its strata: most images first, equals shuffled.

    The draw goes by the order in which patients first appear in `frame`, which is that of the
    release, and not by their ids, which are hashed with the salt of one work folder.
    """
    table = patients_of(frame, positive=positive, stratify_by=stratify_by, least=least)
    for label, mine in table.groupby("label", sort=True):
        yield str(label), [_shuffled(each, rng) for _, each in mine.groupby("stratum", sort=True)]


def patients_of(
    frame: pd.DataFrame, *, positive: str, stratify_by: Sequence[str], least: int
) -> pd.DataFrame:
    """One row a patient (index group_id, in order of appearance): label, stratum, wanted, images.

    A patient with any `positive` image is of the positive label, any other of the rarest label
    among the patient's images; the finer values are those of the first image with that label.
    `wanted` is the stratum asked for. Those with fewer than `least` patients are one stratum of
    their label, together with the label's smallest others until it has `least` too.
    """
    codes, groups = pd.factorize(frame["group_id"])
    ranks = _ranks(frame["label"], positive)
    order = np.lexsort((np.arange(len(codes)), ranks, codes))
    first = order[np.unique(codes[order], return_index=True)[1]]
    columns = list(dict.fromkeys([*LABEL, *stratify_by]))
    told = frame[columns].iloc[first].astype("str").set_axis(groups)
    wanted = told["label"]
    for name in columns[1:]:
        wanted = wanted + "\x1f" + told[name]
    table = pd.DataFrame({"label": told["label"], "wanted": wanted, "stratum": wanted})
    table["images"] = np.bincount(codes, minlength=len(groups))
    if len(columns) > 1:
        for _, mine in table.groupby("label"):
            small = _too_small(mine["wanted"].value_counts(), least)
            table.loc[mine.index[mine["wanted"].isin(small)], "stratum"] = ""
    return table


def _ranks(labels: pd.Series, positive: str) -> NDArray[np.int64]:
    """For each image the rank of its label: the positive one, then the rarer ones first."""
    frequency = labels.value_counts()
    order = sorted(
        frequency.index, key=lambda label: (label != positive, frequency[label], str(label))
    )
    rank = {label: number for number, label in enumerate(order)}
    return np.asarray(labels.map(rank), np.int64)


def _too_small(sizes: pd.Series, least: int) -> list[str]:
    """The strata of one label to be drawn together, so that each has `least` patients or all."""
    ordered = sorted(sizes.items(), key=lambda each: (each[1], str(each[0])))
    taken: list[str] = []
    together = 0
    for name, size in ordered:
        if size >= least and (not taken or together >= least):
            break
        taken.append(str(name))
        together += int(size)
    return taken


def _shuffled(table: pd.DataFrame, rng: np.random.Generator) -> list[str]:
    turn = rng.permutation(len(table))
    sizes = table["images"].to_numpy()[turn]
    ordered: list[str] = table.index.to_numpy()[turn[np.argsort(-sizes, kind="stable")]].tolist()
    return ordered
