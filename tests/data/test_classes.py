"""Ids of the tasks, and which class a grade or a density has in each."""

import pytest

from mammo.data.classes import TASKS, class_of_birads, class_of_density


@pytest.mark.parametrize("suffix", ["", "_birads"])
def test_ids_of_malignancy_are_those_of_system_0(suffix: str) -> None:
    four = TASKS[f"malignancy4{suffix}"]
    ids = {name: four.id_of(name) for name in four.names}
    assert ids == {"benign": 0, "malignant": 1, "suspicious": 2, "probably_benign": 3}
    for classes in (2, 3):
        assert TASKS[f"malignancy{classes}{suffix}"].names == four.names[:classes]


def test_tasks_by_pathology_and_by_assessment_are_never_equal() -> None:
    for classes in (2, 3, 4):
        proven, assessed = TASKS[f"malignancy{classes}"], TASKS[f"malignancy{classes}_birads"]
        assert (proven.label_kind, assessed.label_kind) == ("pathology", "birads")
        assert proven != assessed


@pytest.mark.parametrize(
    ("grade", "two", "three", "four"),
    [
        ("0", "", "", ""),
        ("1", "benign", "benign", "benign"),
        ("2", "benign", "benign", "benign"),
        ("3", "", "", "probably_benign"),
        ("4", "", "suspicious", "suspicious"),
        ("4B", "", "suspicious", "suspicious"),
        ("5", "malignant", "malignant", "malignant"),
        ("6", "malignant", "malignant", "malignant"),
        ("", "", "", ""),
    ],
)
def test_the_class_of_a_birads_grade(grade: str, two: str, three: str, four: str) -> None:
    found = [class_of_birads(f"malignancy{classes}_birads", grade) for classes in (2, 3, 4)]
    assert found == [two, three, four]


def test_the_class_of_a_density() -> None:
    assert [class_of_density("density2", letter) for letter in ("A", "B", "C", "D")] == [
        "not_dense", "not_dense", "dense", "dense",
    ]  # fmt: skip
    assert class_of_density("density4", "C") == "C"
    assert class_of_density("density2", "E") == class_of_density("density4", "") == ""


@pytest.mark.parametrize(
    ("task", "scale"),
    [
        ("malignancy4", ("benign", "probably_benign", "suspicious", "malignant")),
        ("cbis_pathology3", ("benign_without_callback", "benign", "malignant")),
        ("density4", ("A", "B", "C", "D")),
        ("malignancy2", ()),  # two classes have no order that counts
        ("cmmd_subtype4", ()),
    ],
)
def test_grades_have_a_rising_order_whatever_their_ids(task: str, scale: tuple[str, ...]) -> None:
    assert TASKS[task].scale == scale
