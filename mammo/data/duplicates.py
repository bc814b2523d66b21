"""Finds pictures that are there twice: the same pixels, the same picture, or the same scene."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.alignment import COARSE, Prints, Values, fit, prints, shifted_likeness
from mammo.data.dataset import sha256_of
from mammo.seeds import derive

# Reads picture `row` as (H, W) in [0, 1]; pictures may differ in size.
Read = Callable[[int], Values]

# Similarity from which two pictures are one and the same, saved again: copies by mirroring,
# shift, crop, JPEG, gamma and noise lie above, pictures of different breasts below.
COPY = 0.75
# Bounds of the similarity from which two pictures show the same scene: another frame of the
# same sweep, the same lesion with callipers. How alike strangers are depends on the kind of
# picture, so the bound is put well above what unrelated pictures of the set reach.
_SCENE = (0.25, COPY)
_SPREAD = 5.0  # robust standard deviations above the median of unrelated pairs
_SAMPLE = 300  # pairs that tell how alike unrelated pictures are
_FEWEST = 20  # pairs without which nothing can be said of strangers
# The biggest scene that is believed: BUSI's holds 1 % of its pictures.
_SCENE_PICTURES = 8
_SCENE_SHARE = 0.2
_SMALL = 32  # side at which all pairs are screened
_NEIGHBOURS = 8  # screened matches of a picture that are looked at,
_CLOSE = 4  # and of these, the ones laid on each other
_SCREEN = 0.3  # correlation below which a match is chance
_FLAT = 1e-3  # standard deviation of a picture with nothing in it; all such are alike
_BLOCK = 2048  # pictures screened against each other at once: 16 MiB of correlations


@dataclass(frozen=True)
class Pair:
    """Two rows whose pictures agree."""

    first: int
    second: int
    similarity: float  # 1 for equal pixels
    mirrored: bool

    @property
    def copies(self) -> bool:
        return self.similarity >= COPY


def near_duplicates(read: Read, count: int, hashes: Sequence[str] = ()) -> list[Pair]:
    """Pairs among `count` pictures that show the same scene, by row; see `compared`."""
    pairs, bound = compared(read, count, hashes)
    return [pair for pair in pairs if pair.similarity >= bound]


def compared(read: Read, count: int, hashes: Sequence[str] = ()) -> tuple[list[Pair], float]:
    """The pairs among `count` pictures that look most alike, and from where they are one scene.

    `hashes` (of the pixels, count) saves comparing equal ones: each is paired with the first of
    its kind. Each picture takes 16 kB of memory and some 30 ms; screening all pairs, which grows
    with the square of `count`, takes as long as that from about 250,000 pictures on.
    """
    firsts = _firsts(hashes or [str(row) for row in range(count)])
    rows = [row for row in range(count) if firsts[row] == row]
    coarse, filled = _coarse_prints(read, rows)
    rows = [row for row, full in zip(rows, filled, strict=True) if full]
    coarse, known = coarse[filled], set(rows)
    equal = [
        Pair(first, row, 1.0, False)
        for row, first in enumerate(firsts)
        if first != row and first in known
    ]
    screened = _screen(coarse)
    look = lru_cache(maxsize=4 * _BLOCK)(lambda place: prints(read(rows[place])))
    found = _compare(_closest(screened, coarse), look)
    alike = [
        Pair(rows[pair.first], rows[pair.second], pair.similarity, pair.mirrored) for pair in found
    ]
    pairs = sorted(equal + alike, key=lambda pair: (pair.first, pair.second))
    return pairs, _scene_bound(screened, look)


def near_duplicate_groups(read: Read, count: int, hashes: Sequence[str] = ()) -> NDArray[np.int64]:
    """Number of the group (count,) of each picture: those that show the same scene share one."""
    return clusters(count, near_duplicates(read, count, hashes))


def grouped_by_scene(
    groups: pd.Series, stored: Callable[[int], NDArray[Any]]
) -> tuple[pd.Series, bool]:
    """`groups` of a release without patients, where those of a scene get that of its first.

    `stored` gives picture `row` as integers (H, W), of a size that the dataset's has no part in.
    Where a "scene" would hold more pictures than any does, all are alike, and likeness tells
    nothing: then equal pictures alone are joined, and the second value is False.
    """

    def read(row: int) -> Values:
        picture = stored(row)
        return np.asarray(picture / np.float32(np.iinfo(picture.dtype).max), np.float32)

    hashes = [sha256_of(stored(row)) for row in range(len(groups))]
    firsts = near_duplicate_groups(read, len(groups), hashes)
    told = np.bincount(firsts).max() <= max(_SCENE_PICTURES, _SCENE_SHARE * len(groups))
    if not told:
        firsts = np.array(_firsts(hashes), np.int64)
    return groups.iloc[firsts].set_axis(groups.index), bool(told)


def clusters(count: int, pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """Smallest row (count,) that each row is joined with through `pairs`."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for pair in pairs:
        low, high = sorted((root(pair.first), root(pair.second)))
        parent[high] = low
    return np.array([root(row) for row in range(count)], np.int64)


def _firsts(hashes: Sequence[str]) -> list[int]:
    """For each row the first row of the same hash."""
    seen: dict[str, int] = {}
    return [seen.setdefault(each, row) for row, each in enumerate(hashes)]


def _coarse_prints(read: Read, rows: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Coarse prints (N, COARSE, COARSE) as float16, and which pictures hold anything at all."""
    coarse = np.zeros((len(rows), COARSE, COARSE), np.float16)
    filled = np.zeros(len(rows), bool)
    for place, row in enumerate(rows):
        picture = read(row)
        filled[place] = picture.std() > _FLAT
        if filled[place]:
            coarse[place] = prints(picture).coarse
    return coarse, filled


def _screen(coarse: NDArray[Any]) -> list[tuple[int, int]]:
    """Pairs of places whose small prints agree, each picture with its _NEIGHBOURS best."""
    plain, turned = _small(coarse), _small(coarse[:, :, ::-1])
    count = len(coarse)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, count, _BLOCK):
        mine = plain[start : start + _BLOCK]
        best = np.full((len(mine), 0), 0.0, np.float32)
        where = np.zeros((len(mine), 0), np.int64)
        for other in range(0, count, _BLOCK):
            block = slice(other, other + _BLOCK)
            alike = np.maximum(mine @ plain[block].T, mine @ turned[block].T)
            if other == start:
                np.fill_diagonal(alike, -1)
            numbers = np.broadcast_to(np.arange(other, other + alike.shape[1]), alike.shape)
            best, where = _top(np.hstack([best, alike]), np.hstack([where, numbers]))
        for row, column in zip(*np.nonzero(best > _SCREEN), strict=True):
            here, there = start + int(row), int(where[row, column])
            pairs.add((min(here, there), max(here, there)))
    return sorted(pairs)


def _top(values: Values, numbers: NDArray[np.int64]) -> tuple[Values, NDArray[np.int64]]:
    keep = min(_NEIGHBOURS, values.shape[1])
    order = np.argpartition(-values, keep - 1, axis=1)[:, :keep]
    return np.take_along_axis(values, order, 1), np.take_along_axis(numbers, order, 1)


def _small(coarse: NDArray[Any]) -> Values:
    """Coarse prints as flat vectors (N, _SMALL^2) of mean 0 and length 1."""
    from scipy import ndimage

    factor = COARSE // _SMALL
    shape = (len(coarse), _SMALL, factor, _SMALL, factor)
    reduced = coarse.reshape(shape).mean((2, 4), dtype=np.float32)
    flat = ndimage.gaussian_filter(reduced, (0, 1.0, 1.0)).reshape(len(coarse), _SMALL**2)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return np.asarray(flat, np.float32)


def _closest(pairs: Sequence[tuple[int, int]], coarse: NDArray[Any]) -> list[tuple[int, int]]:
    """Of each picture's pairs the _CLOSE that agree best when shifted."""
    mine: dict[int, list[tuple[float, tuple[int, int]]]] = {}
    for pair in pairs:
        first, second = (coarse[place].astype(np.float32) for place in pair)
        likeness = shifted_likeness(first, second)
        for place in pair if likeness > _SCREEN else ():
            mine.setdefault(place, []).append((likeness, pair))
    return sorted({pair for found in mine.values() for _, pair in sorted(found)[-_CLOSE:]})


def _compare(pairs: Sequence[tuple[int, int]], look: Callable[[int], Prints]) -> list[Pair]:
    found = []
    for first, second in pairs:
        laid = fit(look(first), look(second))
        found.append(Pair(first, second, laid.similarity, laid.mirrored))
    return found


def _scene_bound(pairs: Sequence[tuple[int, int]], look: Callable[[int], Prints]) -> float:
    """Similarity that unrelated pictures of this set do not reach, within _SCENE.

    Nearly all screened pairs are strangers, so their median and spread are those of strangers;
    where most are not, the spread is wide and the bound is that of copies.
    """
    if len(pairs) < _FEWEST:
        return COPY
    rng = np.random.default_rng(derive(0, "strangers"))
    drawn = rng.choice(len(pairs), min(_SAMPLE, len(pairs)), replace=False)
    values = [pair.similarity for pair in _compare([pairs[at] for at in drawn], look)]
    median = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(np.asarray(values) - median)))
    return float(np.clip(median + _SPREAD * spread, *_SCENE))
