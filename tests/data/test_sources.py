"""What all adapters share: their list, what may be asked of them, class maps."""

from pathlib import Path

import pytest

from mammo.data.sources import ADAPTERS, Files, Inside, find_file, parse_class_map
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


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_nearest_table_counts_whatever_its_letters(tmp_path: Path) -> None:
    touched(tmp_path, "a/b/info.txt", "c/INFO.TXT", "__MACOSX/Info.txt", ".cache/Info.txt")
    assert find_file(tmp_path, "Info.txt") == tmp_path / "c/INFO.TXT"
    assert find_file(tmp_path / "a", "Info.txt") == tmp_path / "a/b/info.txt"
    assert find_file(tmp_path, "Other.txt") is None


def test_of_tables_equally_near_the_first_name_counts_and_two_of_a_name_are_refused(
    tmp_path: Path,
) -> None:
    touched(tmp_path, "x/table.csv", "y/table.xlsx", "x/deep/table.xlsx")
    assert find_file(tmp_path, "*.xlsx", "*.csv") == tmp_path / "y/table.xlsx"
    touched(tmp_path, "z/table.xlsx")
    with pytest.raises(DataError, match=r"holds 2 files \*\.xlsx; give the folder of one release"):
        find_file(tmp_path, "*.xlsx", "*.csv")


def test_folders_that_link_to_each_other_are_not_followed(tmp_path: Path) -> None:
    touched(tmp_path, "a/x.csv")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert find_file(tmp_path, "y.csv") is None


def test_a_picture_is_told_by_the_end_of_its_path(tmp_path: Path) -> None:
    files = Files(touched(tmp_path, "p/1.2.3.dcm", "q/1.2.3.png", "p/1.2.png", "r/other.txt"))
    assert files.find("q/1.2.3") == tmp_path / "q/1.2.3.png"
    assert files.find("1.2.3") == tmp_path / "p/1.2.3.dcm"  # the other may be its copy
    assert files.find("s/1.2", "1.2") == tmp_path / "p/1.2.png"
    assert files.find("1.2", at=tmp_path / "r/other.txt") == tmp_path / "r/other.txt"
    for name in ("2.3", "other", "1.2.3.dcm"):
        with pytest.raises(DataError, match="the file is missing"):
            files.find(name)


@pytest.mark.parametrize("name", [".old/a.png", "images/.a.png"])
def test_what_is_hidden_is_no_part_of_a_release(tmp_path: Path, name: str) -> None:
    """Whether a run was done already is told by the files that are seen."""
    touched(tmp_path, name)
    with pytest.raises(DataError, match="a path in the table is hidden"):
        Inside(tmp_path).path(name, "the table")
    with pytest.raises(DataError, match="the file is missing"):
        Files(tmp_path).find("a")
    assert Inside(tmp_path).path("./images/a.png", "the table") == tmp_path / "images/a.png"


def test_a_name_that_two_pictures_have_stands_for_neither(tmp_path: Path) -> None:
    files = Files(touched(tmp_path, "p/1.png", "q/1.jpg"))
    assert files.find("p/1") == tmp_path / "p/1.png"
    with pytest.raises(DataError, match="the file is there 2 times"):
        files.find("1")


def test_a_picture_that_links_out_of_the_release_is_refused(tmp_path: Path) -> None:
    touched(tmp_path, "outside/1.png", "release/2.png")
    (tmp_path / "release/1.png").symlink_to(tmp_path / "outside/1.png")
    files = Files(tmp_path / "release")
    with pytest.raises(DataError, match="a link that leads out of source; copy the file"):
        files.find("1")
