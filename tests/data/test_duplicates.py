"""Near-duplicates: planted copies are found through every change, different breasts never."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mammo.data.duplicates import COPY, Pair, clusters, near_duplicate_groups, near_duplicates
from mammo.data.phantom import draw_patient, render

Values = NDArray[np.float32]
PATIENTS = 40


def breast(patient: int) -> Values:
    return render(draw_patient(patient, seed=5), "L", "MLO", image_size=128)[0]


@pytest.fixture(scope="module")
def breasts() -> list[Values]:
    """Forty different patients' left breasts, MLO, (128, 96) in [0, 1]."""
    return [breast(patient) for patient in range(PATIENTS)]


def mirrored(picture: Values) -> Values:
    return picture[:, ::-1]


def moved(picture: Values) -> Values:
    out = np.zeros_like(picture)
    out[2:, 2:] = picture[:-2, :-2]
    return out


def compressed(picture: Values) -> Values:
    file = io.BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file), np.float32) / 255


def brightened(picture: Values) -> Values:
    return np.asarray(picture**1.1, np.float32)


def grainy(picture: Values) -> Values:
    noise = np.random.default_rng(int(picture.sum())).normal(0, 0.01, picture.shape)
    return np.clip(picture + noise, 0, 1).astype(np.float32)


def trimmed(picture: Values) -> Values:
    height, width = picture.shape
    return picture[height // 50 : -height // 40, : -width // 40]


CHANGES: list[Callable[[Values], Values]] = [
    mirrored,
    moved,
    compressed,
    brightened,
    grainy,
    trimmed,
]


@pytest.mark.doors
@pytest.mark.parametrize("change", CHANGES)
def test_planted_copies_are_found_and_no_other_pair(breasts, change):
    planted = 25
    pictures = [*breasts, *(change(picture) for picture in breasts[:planted])]
    found = [pair for pair in near_duplicates(pictures.__getitem__, len(pictures)) if pair.copies]
    truth = {(row, PATIENTS + row) for row in range(planted)}
    seen = {(pair.first, pair.second) for pair in found}
    assert seen <= truth, "two different breasts are called copies"
    assert len(seen & truth) >= 0.95 * planted
    assert {pair.mirrored for pair in found} == {change is mirrored}


@pytest.mark.doors
def test_different_breasts_share_no_scene(breasts):
    assert near_duplicates(breasts.__getitem__, PATIENTS) == []
    assert len(set(near_duplicate_groups(breasts.__getitem__, PATIENTS))) == PATIENTS


def test_equal_hashes_are_copies_without_a_look(breasts):
    pictures = [breasts[0], breasts[1], breasts[0], breasts[0]]
    pairs = near_duplicates(pictures.__getitem__, 4, hashes=["a", "b", "a", "a"])
    assert pairs == [Pair(0, 2, 1.0, False), Pair(0, 3, 1.0, False)]


def test_empty_pictures_are_no_copies_of_each_other():
    black = np.zeros((64, 64), np.float32)
    assert near_duplicates(lambda row: black, 5, hashes=["same"] * 5) == []


def test_a_copy_of_another_size_is_found(breasts):
    small = Image.fromarray(breasts[3]).resize((66, 88), Image.Resampling.BOX)
    pictures = [*breasts[:10], np.asarray(small)]
    (pair,) = near_duplicates(pictures.__getitem__, 11)
    assert (pair.first, pair.second) == (3, 10)
    assert pair.similarity > COPY


@pytest.mark.doors
def test_pairs_do_not_depend_on_the_order_of_pictures(breasts):
    pictures = [*breasts[:20], *(grainy(picture) for picture in breasts[:5])]
    order = np.random.default_rng(0).permutation(25)
    straight = near_duplicates(pictures.__getitem__, 25)
    mixed = near_duplicates(lambda row: pictures[order[row]], 25)
    named = {frozenset((int(order[pair.first]), int(order[pair.second]))) for pair in mixed}
    assert named == {frozenset((pair.first, pair.second)) for pair in straight}


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_clusters_are_the_connected_components(edges):
    groups = clusters(20, [Pair(a, b, 1.0, False) for a, b in edges])
    reached = np.eye(20, dtype=bool)
    for a, b in edges:
        reached[a, b] = reached[b, a] = True
    for middle in range(20):  # Warshall's closure
        reached |= reached[:, [middle]] & reached[[middle], :]
    assert [list(groups == groups[row]) for row in range(20)] == reached.tolist()
    assert list(groups) == [int(np.flatnonzero(row)[0]) for row in reached]
