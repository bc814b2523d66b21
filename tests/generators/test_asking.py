"""What is asked of a generator: conditions as they stood together, counts, seeds."""

from collections import Counter

import pytest

from mammo.errors import ConfigError
from mammo.generators.asking import (
    FURTHER,
    SEEDS,
    Told,
    further_seed,
    parse_conditions,
    parse_range,
    seed_of,
)

ABOUT = {
    "conditions": {
        "label": ["benign", "malignant"],
        "view": ["CC", "MLO"],
        "density": ["A", "B", "C"],
    },
    "combinations": [
        {"label": "benign", "view": "CC", "density": "A", "count": 30},
        {"label": "benign", "view": "MLO", "density": "B", "count": 10},
        {"label": "malignant", "view": "MLO", "density": "C", "count": 5},
        {"label": "malignant", "view": "CC", "density": "", "count": 15},
    ],
}


def told_of(text, label, count):
    told = Told.by(ABOUT, parse_conditions(text))
    return Counter(tuple(told.of(label, seed).items()) for seed in range(count))


def test_conditions_are_drawn_together_as_often_as_they_stood_together_in_training():
    """Of 4,000 three quarters, 3,000 +- 27 (one standard deviation), and no other pair."""
    found = told_of("", "benign", 4000)
    often, seldom = (("view", "CC"), ("density", "A")), (("view", "MLO"), ("density", "B"))
    assert set(found) == {often, seldom}
    assert found[often] == pytest.approx(3000, abs=110)
    assert (("view", "CC"), ("density", "")) in told_of("", "malignant", 50)  # "" is not told


def test_what_is_told_is_a_function_of_class_and_seed():
    told = Told.by(ABOUT, {})
    one = [told.of("malignant", seed) for seed in range(40)]
    assert [told.of("malignant", seed) for seed in reversed(range(40))] == one[::-1]
    assert len({tuple(each.values()) for each in one}) == 2


def test_what_is_fixed_leaves_the_others_as_they_stood_with_it():
    assert set(told_of("view=CC", "benign", 100)) == {(("view", "CC"), ("density", "A"))}
    assert set(told_of("density=C", "malignant", 100)) == {(("view", "MLO"), ("density", "C"))}
    assert set(told_of("view=MLO,density=A", "malignant", 50)) == {
        (("view", "MLO"), ("density", "A"))
    }
    assert set(told_of("view=", "benign", 200)) == {
        (("view", ""), ("density", "A")),
        (("view", ""), ("density", "B")),
    }


def test_what_never_stood_together_is_warned_of(caplog):
    Told.by(ABOUT, {"view": "CC", "density": "A"}).warn(["benign", "malignant"])
    (line,) = caplog.messages
    assert line == "no training image of class malignant had view=CC, density=A: it is a guess"


def test_a_value_may_hold_commas():
    expected = {"vendor": "Maker, Inc.", "view": "CC"}
    assert parse_conditions("vendor=Maker, Inc.,view = CC") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("view", "'view' should be <column>=<value>"),
        ("=CC", "should be <column>=<value>"),
        ("view=CC,view=MLO", "each column once"),
        ("label=benign", "counts=benign=<images>"),
        (
            "vendor=x",
            "condition 'vendor' is unknown to this generator: it knows view, density; leave it out",
        ),
        ("view=ML", "unknown view 'ML'; choose one of CC, MLO"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        Told.by(ABOUT, parse_conditions(text))


@pytest.mark.parametrize("text", ["", "1", "0.5,0.5", "0.8,0.2", "-0.1,1", "0,1.5", "a,b", "0,1,2"])
def test_a_range_is_two_numbers_the_lower_first(text):
    with pytest.raises(ConfigError, match=r"mask_area .* should be two numbers from 0 to 1"):
        parse_range(text, "mask_area")
    assert parse_range("0,0.04", "mask_area") == (0, 0.04)


def test_no_first_seed_of_a_class_is_a_further_seed_of_another_image():
    """33 million images of a class and 49 redraws of each have seeds of their own."""
    first = seed_of("malignant", 0)
    assert first + FURTHER * 50 < SEEDS
    assert further_seed(first, 1) - first == 1 << 25
