"""Texts that map labels to classes: what contradicts itself is refused, never guessed."""

import pytest

from mammo.data.sources import parse_class_map
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
