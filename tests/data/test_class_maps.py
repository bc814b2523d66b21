"""Texts that map labels to classes: what contradicts itself is refused, never guessed."""

import logging

import pytest

from mammo.data.sources import class_map, parse_class_map
from mammo.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("malignant=2,malignant=1,benign=0,benign=1", "'1'"),
        ("0=benign,2=benign,1=malignant,1=benign", "'1'"),
        ("0=1,1=2,2=0", "'0'"),  # forth 1 becomes 0, back it becomes 2
    ],
)
def test_a_map_that_gives_a_label_two_classes_is_refused(text: str, label: str) -> None:
    with pytest.raises(ConfigError, match=f"gives the label {label} two classes"):
        parse_class_map(text, ["0", "1", "2"])


def test_a_map_that_means_the_same_both_ways_is_taken() -> None:
    swapped = {"0": "1", "1": "0"}
    assert parse_class_map("0=1,1=0", ["0", "1"]) == swapped
    assert parse_class_map("0=1,1=0,0=1", ["0", "1"]) == swapped


def test_a_label_that_no_image_has_may_have_any_class() -> None:
    assert parse_class_map("malignant=1,benign=0,benign=9,malignant=9", ["0", "1"]) == {
        "0": "benign",
        "1": "malignant",
    }


def test_a_positive_class_that_was_guessed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The last name may well be the healthy one: sensitivity would be that of normal."""
    with caplog.at_level(logging.WARNING, "mammo"):
        assert class_map("label", ["cancer", "normal"], "").positive == "normal"
        assert caplog.messages == [
            "preprocess: the positive class is normal, the last by name; --positive names another"
        ]
        caplog.clear()
        assert class_map("label", ["cancer", "normal"], "cancer").positive == "cancer"
        assert class_map("label", ["malignant", "normal"], "").positive == "malignant"
        assert class_map("malignancy2", ["benign"], "").positive == "malignant"
    assert not caplog.messages
