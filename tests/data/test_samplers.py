"""Samplers: what one epoch shows, counted."""

import numpy as np
import pytest

from mammo.data.samplers import SAMPLERS
from mammo.errors import ConfigError

LABELS = np.repeat([0, 1, 2], [70, 20, 7])


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_sampler_is_a_function_of_its_seed(name):
    one, again, other = (SAMPLERS[name](LABELS, seed, batch_size=16) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert one.tolist() != other.tolist()
    assert one.min() >= 0
    assert one.max() < len(LABELS)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_single_row_is_an_epoch_of_one(name):
    assert SAMPLERS[name](np.array([1]), 0, batch_size=8).tolist() == [0]


def test_random_shows_every_row_once():
    assert sorted(SAMPLERS["random"](LABELS, 5, batch_size=16)) == list(range(97))


def test_weighted_draws_each_class_equally_often_and_each_row_of_a_class_too():
    labels = np.repeat([0, 1], [9000, 1000])
    drawn = SAMPLERS["weighted"](labels, 3, batch_size=16)
    assert len(drawn) == 10000
    # binomial(10000, 0.5) stays within 4 standard deviations (200) of 5000
    assert abs((labels[drawn] == 1).sum() - 5000) < 200
    times = np.bincount(drawn, minlength=10000)[9000:]
    # each positive row is drawn Poisson(5) times: none of 1000 is drawn 20 times
    assert times.max() < 20
    assert abs(times.mean() - 5) < 0.3


@pytest.mark.parametrize("batch_size", [2, 5, 16, 97, 500])
def test_balanced_batches_hold_each_class_equally_often_to_one(batch_size):
    drawn = SAMPLERS["balanced"](LABELS, 0, batch_size=batch_size)
    size = min(batch_size, 97)
    assert len(drawn) == int(97 / size + 0.5) * size
    for start in range(0, len(drawn), size):
        counts = np.bincount(LABELS[drawn[start : start + size]], minlength=3)
        assert counts.max() - counts.min() <= 1
    whole = np.bincount(LABELS[drawn], minlength=3)
    assert whole.max() - whole.min() <= 1


def test_balanced_repeats_rows_of_a_class_equally_often_to_one():
    times = np.bincount(SAMPLERS["balanced"](LABELS, 0, batch_size=16), minlength=97)
    for label in range(3):
        mine = times[label == LABELS]
        assert mine.max() - mine.min() <= 1
    assert times[LABELS == 2].min() >= 4  # 32 draws of 7 rows


def test_an_unknown_sampler_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match="unknown sampler 'best'; choose one of balanced, random"):
        SAMPLERS["best"]
