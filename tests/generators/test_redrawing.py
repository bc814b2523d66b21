"""Which drawn masks count, and what becomes of an image that is rejected."""

import numpy as np
import pytest

from mammo.errors import DataError
from mammo.generators.asking import SEEDS, further_seed
from mammo.generators.mask_areas import Bounds, binarized
from mammo.generators.redrawing import ATTEMPTS, HOPELESS, until_accepted


@pytest.mark.parametrize(
    ("setting", "label", "share", "rule"),
    [
        ("auto", "benign", 0.1, ""),
        ("auto", "benign", 0.3, "too_large"),  # only malignant ones were as large
        ("auto", "malignant", 0.3, ""),
        ("auto", "normal", 0.3, ""),  # of no class that had masks: the range of all
        ("auto", "normal", 0.01, "too_small"),
        ("0,0.04", "benign", 0.04, ""),
        ("0,0.04", "benign", 0.0401, "too_large"),
        ("0,0.04", "malignant", 0.0, "empty"),  # an empty mask is none
    ],
)
def test_a_mask_covers_neither_too_little_nor_too_much(setting, label, share, rule):
    known = {"benign": [0.05, 0.2], "malignant": [0.1, 0.4]}
    assert Bounds.of(setting, known).broken(label, share) == rule


def test_the_threshold_itself_is_inside():
    values = np.array([[[[0.0, 0.0999, 0.1, 1.0]]]], np.float32)
    assert binarized(values, np.float32(0.1)).tolist() == [[[[0, 0, 255, 255]]]]


def test_what_is_rejected_is_drawn_again_with_seeds_that_belong_to_its_place_alone():
    """Place p is accepted at its attempt p: 1 + 2 + 3 draws."""

    def draw_some(places, seeds):
        attempts = [(seed - 10 * place) >> 25 for place, seed in zip(places, seeds, strict=True)]
        accepted = np.array([a == p for a, p in zip(attempts, places, strict=True)])
        return {"images": np.array(attempts)}, accepted

    found = until_accepted([("a", 0), ("a", 10), ("b", 20)], draw_some, what="images", why=str)
    assert found.arrays["images"].tolist() == [0, 1, 2]
    assert found.seeds == [0, 10 + 2**25, 20 + 2 * 2**25]
    assert found.draws == 6
    assert further_seed(2**31, 63) < SEEDS


def test_what_is_never_accepted_ends_with_counts():
    def all_but_the_first(places, seeds):
        return {"images": np.zeros(len(places))}, np.array(places) == 0

    with pytest.raises(DataError) as raised:
        until_accepted([("a", 0), ("b", 1)], all_but_the_first, what="masks", why=str.upper)
    assert str(raised.value) == (
        f"1 of 2 masks were rejected {ATTEMPTS} times each (1 of {ATTEMPTS + 1} draws accepted): B"
    )


def test_a_hopeless_generator_is_given_up_early():
    def none(places, seeds):
        return {"images": np.zeros(len(places))}, np.zeros(len(places), bool)

    with pytest.raises(DataError, match=f"100 of 100 .* 3 times each .0 of {300} draws"):
        until_accepted([("a", seed) for seed in range(100)], none, what="masks", why=str)
    assert 200 < HOPELESS <= 300
