"""Releases without pathology: malignancy is by BI-RADS there, and what is recorded says so."""

from pathlib import Path

import doors
import pytest
from dicoms import write_dicom
from releases_b import breast
from releases_form import text

import mammo
from mammo.data.classes import TASKS
from mammo.data.sources import ADAPTERS, check_request, open_adapter, task_of
from mammo.errors import ConfigError

HEADER = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,"
    "breast_density,split\n"
)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_task_that_is_offered_is_read_as_it_is_named(name: str) -> None:
    for task in getattr(open_adapter(name), "OFFERS", ()):
        assert task_of(name, task) == task


@pytest.mark.parametrize("name", ["inbreast", "vindr"])
@pytest.mark.parametrize("task", ["malignancy2", "malignancy3", "malignancy4"])
def test_malignancy_is_by_birads_where_there_is_nothing_else(name: str, task: str) -> None:
    check_request(name, task, {})
    read = TASKS[task_of(name, task)]
    assert (read.names, read.positive) == (TASKS[task].names, TASKS[task].positive)
    assert (read.label_kind, TASKS[task].label_kind) == ("birads", "pathology")


@pytest.mark.parametrize("name", ["cmmd", "rsna", "busi", "csv"])
def test_no_assessment_stands_in_for_what_a_release_lacks(name: str) -> None:
    assert task_of(name, "malignancy4") == "malignancy4"
    with pytest.raises(ConfigError, match="task 'malignancy4' has no labels in cmmd"):
        check_request("cmmd", "malignancy4", {})


def test_a_dataset_records_the_task_that_was_read(tmp_path: Path, store: str) -> None:
    rows = []
    for number in range(24):
        study, grade = f"s{number:02d}", (1, 5)[number % 2]
        write_dicom(tmp_path / f"vindr/images/{study}/i{number:02d}.dicom", breast(number, "L"))
        rows.append(f"{study},x,i{number:02d},L,CC,96,72,BI-RADS {grade},DENSITY B,training\n")
    text(tmp_path / "vindr/breast-level_annotations.csv", HEADER + "".join(rows))
    made = doors.here(
        "preprocess", dataset="vindr", source=tmp_path / "vindr", task="malignancy2", image_size=32
    )
    dataset = mammo.open_dataset(made.uri)
    assert (dataset.classes.task, dataset.classes.label_kind) == ("malignancy2_birads", "birads")
    assert dict(dataset.manifest["label"].value_counts()) == {"benign": 12, "malignant": 12}
    assert made.err.count("read as task malignancy2_birads") == 1
