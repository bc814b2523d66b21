"""What all adapters share: their list, what may be asked of them, class maps."""

import pytest

from mammo.data.sources import ADAPTERS, parse_class_map
from mammo.errors import DataError


def test_adapters_are_the_files_of_the_folder() -> None:
    released = {"bcs_dbt", "busi", "cbis_ddsm", "cesm", "cmmd", "csaw_cc", "ddsm", "embed"}
    assert released | {"inbreast", "mias", "rsna", "vindr"} <= set(ADAPTERS)
    assert {"csv", "folder", "phantom"} <= set(ADAPTERS)


def test_a_class_map_reads_both_ways_and_misses_no_value() -> None:
    assert parse_class_map("malignant=1,benign=0,benign=2", ["0", "1", "2"]) == {
        "0": "benign",
        "1": "malignant",
        "2": "benign",
    }
    assert parse_class_map("1=malignant,0=benign", ["0", "1"]) == {"0": "benign", "1": "malignant"}
    with pytest.raises(DataError, match="has no class for the label '3'"):
        parse_class_map("malignant=1,benign=0", ["0", "1", "3"])
