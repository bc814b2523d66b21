"""What of a release may be said or kept."""

import math

import pytest

from mammo.data.disclosure import (
    personal,
    sayable,
    stored_age,
    stored_maker,
    unlike_header,
    unlike_labels,
    unlike_measures,
)


@pytest.mark.parametrize("text", ["benign", "BENIGN_WITHOUT_CALLBACK", "BI-RADS 4a", "1", "12", ""])
def test_words_of_labels_are_said(text: str) -> None:
    assert sayable(text) == repr(text)


@pytest.mark.parametrize("text", ["Jane", "benign Doe", "123", "1955-02-03", "Müller", "mass " * 9])
def test_any_other_text_is_not_said(text: str) -> None:
    assert sayable(text) == "(not shown: it may tell of a person)"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1955-02-03", "a date"),
        ("3.2.55", "a date"),
        ("3 Feb 1955", "a date"),
        ("19550203", "a date"),
        ("48213", "number of a person"),
        ("MRN48213", "number of a person"),
        ("1.2.840.10008.1", "number of a person"),
        ("Doe^Jane", "a name"),
        ("Doe, Jane", "a name"),
        ("jane@example.org", "a name"),
        ("Dr. Doe", "a name"),
        ("seen again after one year of follow up", "free text"),
        ("a\x00b", "binary data"),
    ],
)
def test_what_tells_of_a_person_is_seen(text: str, what: str) -> None:
    assert what in personal(["benign", text])


@pytest.mark.parametrize(
    "text", ["malignant", "4", "0.123456789", "-1.5", "1024", "BI-RADS 4", "2B"]
)
def test_labels_and_measures_are_not_personal(text: str) -> None:
    assert personal([text]) == ""


def test_labels_are_few_and_repeat() -> None:
    assert unlike_labels(["a", "b"] * 5) == ""
    assert unlike_labels(list("abcdefghij")) == (
        "10 distinct values in 10 rows, nearly one for each"
    )
    assert unlike_labels([str(n % 21) for n in range(100)]) == (
        "21 distinct values, where labels have 20 at most"
    )
    assert unlike_labels([str(n % 20) for n in range(100)]) == ""


def test_a_number_of_each_patient_alone_is_an_id() -> None:
    patients = [str(n // 2) for n in range(20)]
    assert unlike_measures([str(7 * (n // 2)) for n in range(20)], patients) == (
        "each patient has a value of its own"
    )
    assert unlike_measures([str(n // 4) for n in range(20)], patients) == ""  # two share one
    assert unlike_measures([f"{n}.5" for n in range(20)], patients) == ""  # one for each image
    assert unlike_measures(["", *[str(n) for n in range(8)]], [str(n) for n in range(9)]) == ""


def test_a_row_of_values_is_no_header() -> None:
    assert unlike_header(["image", "patient_id", "BI-RADS (1-6)"]) == ""
    assert unlike_header(["a.png", "1955-02-03", "12"]) == (
        "2 of its 3 cells are numbers, dates or names"
    )


@pytest.mark.parametrize(
    "maker", ["", "HOLOGIC, Inc.", "GE MEDICAL SYSTEMS", "Fuji Photo Film Co., Ltd.", "IMS s.r.l."]
)
def test_makers_are_kept(maker: str) -> None:
    assert stored_maker(maker) == maker


@pytest.mark.parametrize(
    "text",
    ["DOE^JANE", "jane@example.org", "48213877", "3.11.1937", "1.2.840.113619", "a\nb", "x" * 65],
)
def test_what_is_no_maker_is_not_kept(text: str) -> None:
    assert stored_maker(text) == ""


def test_ages_above_89_are_one_group() -> None:
    assert [stored_age(years) for years in (0.0, 89.0, 89.5, 104.0)] == [0, 89, 90, 90]
    assert math.isnan(stored_age(math.nan))
