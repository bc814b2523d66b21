"""Findings of pictures that are there twice: who shares them, and how they are labelled."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mammo.data.alignment import Values
from mammo.data.checks import FATAL, NOTE, WARNING, Finding
from mammo.data.dataset import Dataset
from mammo.data.duplicates import Pair, Read, clusters, near_duplicates

_SHOWN = 4  # pictures of a cluster on the page


def find_pairs(data: Dataset, rows: Sequence[int], other: Dataset | None = None) -> list[Pair]:
    """Pairs among the images of `rows` of `data`, or of these with all of `other`.

    A pair's rows are manifest positions; those of `other` count on from len(data).
    """
    places = [*rows]
    hashes = data.manifest["sha256"].to_numpy(str)[list(rows)].tolist()
    if other is not None:
        theirs = np.flatnonzero(~other.manifest["is_synthetic"])
        places += [len(data) + int(row) for row in theirs]
        hashes += other.manifest["sha256"].to_numpy(str)[theirs].tolist()
    found = near_duplicates(_reader(data, other, places), len(places), hashes)
    pairs = [
        Pair(places[pair.first], places[pair.second], pair.similarity, pair.mirrored)
        for pair in found
    ]
    if other is None:
        return pairs
    return [pair for pair in pairs if pair.first < len(data) <= pair.second]


def twin_findings(frame: pd.DataFrame, pairs: Sequence[Pair]) -> list[Finding]:
    """Findings of `pairs` within one dataset (column group_id and others of its manifest)."""
    copies = [pair for pair in pairs if pair.copies]
    if not pairs:
        return []
    found = []
    if copies:
        shown = _clusters(copies, len(frame))
        images = sum(len(rows) for rows in shown)
        text = (
            f"{images} images are copies: {len(shown)} pictures, {images - len(shown)} of the "
            f"images could go ({_mirrored(copies)} of {len(copies)} pairs mirrored)"
        )
        found.append(Finding(NOTE, "near-duplicates", text, images, _few(shown)))
    for column, name, words in (
        ("group_id", "copies across patients", "under different patients"),
        ("label", "copies with two labels", "with different labels"),
        ("split", "copies across splits", "in different splits"),
        ("fold", "copies across folds", "in different folds"),
    ):
        values = frame[column].to_numpy()
        apart = [pair for pair in copies if values[pair.first] != values[pair.second]]
        if apart:
            shown = _clusters(apart, len(frame))
            images = sum(len(rows) for rows in shown)
            text = f"{images} images in {len(shown)} clusters of near-duplicates are {words}"
            found.append(Finding(WARNING, name, text, images, _few(shown)))
    scenes = [
        pair
        for pair in pairs
        if not pair.copies
        and frame["group_id"].iat[pair.first] != frame["group_id"].iat[pair.second]
    ]
    if scenes:
        text = (
            f"{len(scenes)} pairs of different patients look like one scene seen twice "
            f"(similarity {min(pair.similarity for pair in scenes):.2f} to "
            f"{max(pair.similarity for pair in scenes):.2f}); look at them"
        )
        shown = [(pair.first, pair.second) for pair in _closest(scenes)]
        found.append(Finding(NOTE, "same scene?", text, len(scenes), tuple(shown)))
    return found


def cross_findings(data: Dataset, other: Dataset, pairs: Sequence[Pair]) -> list[Finding]:
    """Findings between `data` and `other`: common patients, where salts are equal, and copies."""
    found = []
    ours, theirs = (each.manifest[~each.manifest["is_synthetic"]] for each in (data, other))
    salted = data.about.get("salt", "") and data.about["salt"] == other.about.get("salt", "")
    # ids are hashed with the name of their data set: one release read twice has two sets of them
    if salted and set(ours["dataset"]) & set(theirs["dataset"]):
        common = sorted(set(ours["group_id"]) & set(theirs["group_id"]))
        if common:
            text = f"{len(common)} patients are in {other.name} too"
            rows = [
                tuple(int(row) for row in ours.index[ours["group_id"] == group][:_SHOWN])
                for group in common[:_SHOWN]
            ]
            here, there = _trained_and_held(ours, theirs), _trained_and_held(theirs, ours)
            if here:
                text += f"; {here} are trained on here and held out there"
            if there:
                text += f"; {there} are trained on there and held out here"
            severity = FATAL if here or there else WARNING
            found.append(
                Finding(severity, "patient in two datasets", text, len(common), tuple(rows))
            )
    else:
        why = "data sets have different names" if salted else "salts differ"
        text = f"the {why}: patients cannot be compared, their pictures were"
        found.append(Finding(NOTE, "patients not compared", text, 0))
    copies = [pair for pair in pairs if pair.copies]
    if copies:
        text = f"{len({pair.first for pair in copies})} images are copies of images of {other.name}"
        shown = [(pair.first, pair.second) for pair in _closest(copies)]
        found.append(Finding(WARNING, "copies in two datasets", text, len(copies), tuple(shown)))
    return found


def _trained_and_held(ours: pd.DataFrame, theirs: pd.DataFrame) -> int:
    """Patients who train in `ours` and validate or test in `theirs`."""
    trained = set(ours.loc[ours["split"] == "train", "group_id"])
    return len(trained & set(theirs.loc[theirs["split"] != "train", "group_id"]))


def cluster_ids(count: int, pairs: Sequence[Pair]) -> dict[int, int]:
    """Number of the cluster, by row, of every image that has a near-duplicate."""
    joined = clusters(count, pairs)
    sizes = np.bincount(joined, minlength=count)
    several = np.flatnonzero(sizes > 1)
    number = {int(root): place for place, root in enumerate(several)}
    return {row: number[int(root)] for row, root in enumerate(joined) if int(root) in number}


def _reader(data: Dataset, other: Dataset | None, places: Sequence[int]) -> Read:
    def read(row: int) -> Values:
        place = places[row]
        if place < len(data) or other is None:
            return np.asarray(data.images([place])[0, 0])
        return np.asarray(other.images([place - len(data)])[0, 0])

    return read


def _clusters(pairs: Sequence[Pair], count: int) -> list[tuple[int, ...]]:
    """Rows of each cluster, the largest cluster first."""
    members: dict[int, list[int]] = {}
    for row, number in cluster_ids(count, pairs).items():
        members.setdefault(number, []).append(row)
    return sorted((tuple(rows) for rows in members.values()), key=lambda rows: (-len(rows), rows))


def _few(shown: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    return tuple(rows[:_SHOWN] for rows in shown)


def _closest(pairs: Sequence[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _mirrored(pairs: Sequence[Pair]) -> int:
    return sum(pair.mirrored for pair in pairs)
