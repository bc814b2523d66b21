"""What an epoch shows of each class: exact counts, by epoch and seed alone, and all in the end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammo.errors import ConfigError
from mammo.generators.balance import Balance, check_balance
from mammo.steps.train_generator import check

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)
SEED = st.integers(0, 1000)
EPOCH = st.integers(0, 50)


def labels_of(sizes):
    """Classes 0, 1, ... of `sizes`, mixed."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(0).permutation(labels)


def shown(balance, labels, seed, epoch):
    return balance.positions(labels, seed=seed, epoch=epoch)


def test_no_balance_shows_every_image_once():
    labels = labels_of([3, 5])
    assert shown(Balance(), labels, 0, 4).tolist() == list(range(8))


@pytest.mark.parametrize(
    ("ratio", "counts"), [(1.0, [3, 3, 3]), (2.0, [3, 6, 5]), (1.5, [3, 5, 5]), (9.0, [3, 20, 5])]
)
def test_ratio_shows_all_of_the_smallest_class_and_so_many_times_it_of_the_others(ratio, counts):
    labels = labels_of([3, 20, 5])
    seen = shown(Balance("ratio", majority_ratio=ratio), labels, 0, 0)
    assert np.bincount(labels[seen]).tolist() == counts
    assert set(np.flatnonzero(labels == 0)) <= set(seen)


@given(sizes=SIZES, seed=SEED, epoch=EPOCH, ratio=st.floats(0.2, 5))
def test_ratio_repeats_no_image_in_an_epoch_and_keeps_its_counts(sizes, seed, epoch, ratio):
    labels = labels_of(sizes)
    balance = Balance("ratio", majority_ratio=ratio)
    seen = shown(balance, labels, seed, epoch)
    assert len(set(seen.tolist())) == len(seen)
    first = shown(balance, labels, seed, 0)
    assert np.bincount(labels[seen]).tolist() == np.bincount(labels[first]).tolist()
    assert np.array_equal(seen, shown(balance, labels, seed, epoch))


@given(sizes=SIZES, seed=SEED, epoch=EPOCH, each=st.integers(1, 60))
def test_fixed_shows_so_many_of_each_class_and_repeats_evenly_where_there_are_fewer(
    sizes, seed, epoch, each
):
    labels = labels_of(sizes)
    seen = shown(Balance("fixed", samples_per_class=each), labels, seed, epoch)
    assert np.bincount(labels[seen]).tolist() == [each] * len(sizes)
    times = np.bincount(seen, minlength=len(labels))
    for name, size in enumerate(sizes):
        found = set(times[labels == name].tolist())
        assert found <= {each // size, -(-each // size)}


@given(sizes=SIZES, seed=SEED, cycle=st.integers(0, 3), each=st.integers(1, 60))
def test_every_image_is_shown_within_as_many_epochs_as_its_class_needs(sizes, seed, cycle, each):
    labels = labels_of(sizes)
    balance = Balance("fixed", samples_per_class=each)
    for name, size in enumerate(sizes):
        turns = -(-size // each) if each < size else 1
        epochs = range(cycle * turns, (cycle + 1) * turns)
        seen = set(np.concatenate([shown(balance, labels, seed, epoch) for epoch in epochs]))
        assert set(np.flatnonzero(labels == name)) <= seen


def test_another_epoch_and_another_seed_show_others():
    labels = labels_of([10, 200])
    balance = Balance("ratio")
    large = [set(shown(balance, labels, seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    minority = set(np.flatnonzero(labels == 0))
    assert large[0] & large[1] == minority  # dealt without overlap while there are enough
    assert large[0] != large[2]


def changed(**changes):
    import inspect

    from mammo.steps import train_generator

    defaults = inspect.signature(train_generator.run).parameters
    return {name: each.default for name, each in defaults.items()} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"balance": "fixed"}, "balance 'fixed' needs samples_per_class"),
        ({"samples_per_class": 5}, "samples_per_class 5 has no effect with balance 'none'"),
        ({"balance": "ratio", "samples_per_class": 5}, "no effect with balance 'ratio'"),
        ({"majority_ratio": 2.0}, "majority_ratio 2 has no effect with balance 'none'"),
        (
            {"balance": "fixed", "samples_per_class": 5, "majority_ratio": 2.0},
            "majority_ratio 2 has no effect with balance 'fixed'",
        ),
    ],
)
def test_numbers_of_another_balance_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check(changed(**changes))
    check_balance(changed(balance="ratio", majority_ratio=2.0))
