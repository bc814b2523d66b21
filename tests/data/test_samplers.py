"""Samplers: what one epoch shows, counted, and over many epochs as often as it should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mammo.data.samplers import SAMPLERS, check_room
from mammo.errors import ConfigError

LABELS = np.repeat([0, 1, 2], [70, 20, 7])
SETTINGS = {"batch_size": 16, "sampler_ratio": 2.0, "positive": 2}


def shown(name, labels=LABELS, seed=0, epoch=0, **changed):
    """Positions that one epoch shows."""
    return SAMPLERS.bound(name, {**SETTINGS, **changed})(np.asarray(labels), seed, epoch)


def batches(positions, batch_size):
    return np.split(positions, np.arange(batch_size, len(positions), batch_size))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_an_epoch_is_a_function_of_the_seed_and_its_number(name):
    one, again, other, later = (
        shown(name, seed=seed, epoch=epoch) for seed, epoch in ((1, 3), (1, 3), (2, 3), (1, 4))
    )
    np.testing.assert_array_equal(one, again)
    assert one.tolist() != other.tolist() and one.tolist() != later.tolist()
    assert len(one) == len(other) == len(later)  # the number of steps is known beforehand
    assert one.min() >= 0
    assert one.max() < len(LABELS)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("label", [1, 2])
def test_a_single_row_is_an_epoch_of_one(name, label):
    assert shown(name, [label], batch_size=8).tolist() == [0]


# what an epoch of 97 rows shows of each class, in expectation
EXPECTED = {
    "random": [70, 20, 7],
    "weighted": [97 / 3] * 3,
    "balanced": [32] * 3,
    "ratio": [14, 14, 7],
    "one_positive": [70, 20, 7],  # seven batches of 16, seven positives
}


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_trap_t1a_classes_and_rows_are_drawn_as_often_as_promised(name):
    """Chi-square of class frequencies over 60 epochs, and of the rows within each class."""
    drawn = np.concatenate([shown(name, epoch=epoch) for epoch in range(60)])
    seen = np.bincount(LABELS[drawn], minlength=3)
    assert stats.chisquare(seen, 60 * np.array(EXPECTED[name])).pvalue > 1e-3
    for label in range(3):
        times = np.bincount(drawn, minlength=97)[label == LABELS]
        assert stats.chisquare(times).pvalue > 1e-3


def test_random_shows_every_row_once():
    assert sorted(shown("random", seed=5)) == list(range(97))


def test_weighted_draws_each_class_equally_often_and_each_row_of_a_class_too():
    labels = np.repeat([0, 1], [9000, 1000])
    drawn = shown("weighted", labels, seed=3)
    assert len(drawn) == 10000
    # binomial(10000, 0.5) stays within 4 standard deviations (200) of 5000
    assert abs((labels[drawn] == 1).sum() - 5000) < 200
    times = np.bincount(drawn, minlength=10000)[9000:]
    # each positive row is drawn Poisson(5) times: none of 1000 is drawn 20 times
    assert times.max() < 20
    assert abs(times.mean() - 5) < 0.3


@pytest.mark.parametrize("batch_size", [2, 5, 16, 97, 500])
def test_balanced_batches_hold_each_class_equally_often_to_one(batch_size):
    drawn = shown("balanced", batch_size=batch_size)
    size = min(batch_size, 97)
    assert len(drawn) == int(97 / size + 0.5) * size
    for batch in batches(drawn, size):
        counts = np.bincount(LABELS[batch], minlength=3)
        assert counts.max() - counts.min() <= 1
    whole = np.bincount(LABELS[drawn], minlength=3)
    assert whole.max() - whole.min() <= 1


def test_balanced_repeats_rows_of_a_class_equally_often_to_one():
    times = np.bincount(shown("balanced"), minlength=97)
    for label in range(3):
        mine = times[label == LABELS]
        assert mine.max() - mine.min() <= 1
    assert times[LABELS == 2].min() >= 4  # 32 draws of 7 rows


@pytest.mark.parametrize(
    ("wanted", "counts"), [(1.0, [7, 7, 7]), (2.0, [14, 14, 7]), (5.0, [35, 20, 7])]
)
def test_ratio_limits_each_larger_class_to_a_multiple_of_the_smallest(wanted, counts):
    drawn = shown("ratio", sampler_ratio=wanted)
    assert np.bincount(LABELS[drawn]).tolist() == counts
    assert len(set(drawn)) == len(drawn)


def test_ratio_draws_anew_each_epoch_until_all_were_seen():
    epochs = [set(shown("ratio", epoch=epoch)[: 14 + 14 + 7]) for epoch in range(5)]
    large = [{row for row in each if LABELS[row] == 0} for each in epochs]
    assert all(len(each) == 14 for each in large)
    assert set.union(*large) == set(range(70))  # five epochs of 14 of 70


@given(st.integers(1, 60), st.integers(0, 200), st.integers(2, 40), st.integers(0, 5))
def test_each_batch_has_a_positive_and_every_row_comes(positives, others, batch_size, epoch):
    labels = np.repeat([1, 0], [positives, others])
    drawn = shown("one_positive", labels, epoch=epoch, batch_size=batch_size, positive=1)
    parts = batches(drawn, batch_size)
    counts = np.array([(labels[part] == 1).sum() for part in parts])
    assert counts.min() >= 1
    assert counts[:-1].max(initial=1) - counts[:-1].min(initial=counts.max()) <= 1
    times = np.bincount(drawn, minlength=len(labels))
    assert (times[labels == 0] == 1).all()
    repeated = times[labels == 1]
    assert repeated.min() >= 1 and repeated.max() - repeated.min() <= 1
    # positives repeat only where there are fewer than batches
    assert repeated.max() == 1 or counts.max() == 1


def test_a_batch_of_one_has_no_room_beside_its_positive():
    with pytest.raises(ConfigError, match="batch_size 1 leaves no room beside the positive"):
        check_room("one_positive", 1)
    check_room("one_positive", 2)
    check_room("random", 1)


def test_an_unknown_sampler_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match="unknown sampler 'best'; choose one of balanced, one_p"):
        SAMPLERS["best"]
