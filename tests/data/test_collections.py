"""Public collections: what the index says of them offline, and downloads that continue.

The object store of the download tests is a stand-in: a MinIO on loopback with made-up files, and
an index of the same columns that describes them.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mammo import cli
from mammo.data import collections, fetching
from mammo.data.collections import COLLECTIONS, find, select
from mammo.data.fetching import Series, _batches, _is_whole
from mammo.errors import ConfigError, DataError

index = pytest.importorskip("idc_index_data", exc_type=ImportError)
BUCKET = "stand-in"
SIZES = {"D1-0001": (40, 60), "D1-0002": (10, 20, 30), "D2-0003": (70,), "D2-0004": (90,)}


def told(name: str, **settings: Any) -> dict[str, float]:
    series = select(find(name), masks=settings.get("masks", False), limit=settings.get("limit", 0))
    return {
        "patients": series["person"].nunique(),
        "series": len(series),
        "instances": int(series["instanceCount"].sum()),
        "GB": round(float(series["bytes"].sum()) / 1e9, 1),
    }


@pytest.mark.skipif(not index.__version__.startswith("25."), reason="counts are of index 25")
@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("cmmd", {}, {"patients": 1775, "series": 1775, "instances": 5202, "GB": 22.9}),
        # 2,857 series called "full mammogram images" and 246 without a description make the 3,103
        # films and the 1,566 patients that are published
        ("cbis_ddsm", {}, {"patients": 1566, "series": 3103, "instances": 3103, "GB": 102.6}),
        # all 10,239 published files but the 104 crops that are alone in their series
        ("cbis_ddsm", {"masks": True}, {"instances": 10239 - 104, "patients": 1566}),
        ("ea1141", {}, {"patients": 498, "series": 8712, "instances": 12767, "GB": 2451.3}),
        ("bcs_dbt", {}, {"patients": 5060, "series": 22032, "instances": 22032, "GB": 1637.8}),
        ("cmmd", {"limit": 5}, {"patients": 5}),
        ("cbis_ddsm", {"limit": 5}, {"patients": 5}),
    ],
)
def test_the_counts_are_those_of_the_archive(
    name: str, settings: dict[str, Any], expected: dict[str, float]
) -> None:
    found = told(name, **settings)
    assert {key: found[key] for key in expected} == expected


def test_full_mammograms_are_those_described_and_those_without_a_description() -> None:
    series = select(find("cbis_ddsm"), masks=False, limit=0)
    kinds = series["SeriesDescription"].fillna("").value_counts().to_dict()
    assert kinds == {"full mammogram images": 2857, "": 246}
    assert series["person"].str.fullmatch(r"P_\d{5}").all()


def test_a_plan_says_what_a_fetch_would_bring(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket", None)  # the index lies in the wheel: nothing is asked
    assert cli.main(["data", "plan", "bcs_dbt"]) == 0
    out = capsys.readouterr().out
    for expected in (
        "breast_cancer_screening_dbt",
        f"idc-index-data {index.__version__}",
        "22,032",
        "1.64 TB",
        "CC BY-NC 4.0",
        "warning     the license forbids commercial use",
        "BCS-DBT-labels",
        "The Cancer Imaging Archive",
    ):
        assert expected in out
    assert cli.main(["data", "plan", "cmmd"]) == 0
    out = capsys.readouterr().out
    assert "CMMD_clinicaldata_revision.xlsx" in out
    assert "warning" not in out
    assert cli.main(["data", "plan", "cbis_ddsm"]) == 0
    assert "preprocess --dataset cbis_ddsm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plan"], "name is missing; usage: mammo data plan NAME"),
        (["plan", "ddsm2"], "unknown collection 'ddsm2'; choose one of cbis_ddsm, cmmd, bcs_dbt"),
        (["plan", "cmmd", "--masks", "true"], "cmmd has no lesion masks"),
        (["plan", "cmmd", "--limit", "-1"], "limit -1 cannot be used; give a whole number of at"),
        (["fetch", "cmmd"], "output is missing; give --output"),
        (["fetch", "cmmd", "--output", "/proc/none"], "output /proc/none cannot be written"),
        (["sell", "cmmd"], "data 'sell': give one of plan, fetch"),
        ([], "data 'nothing': give one of plan, fetch"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", *arguments]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_without_the_package_the_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "idc_index_data", None)
    with pytest.raises(ConfigError, match=r'pip install "mammo\[idc\]"$'):
        collections.plan("cmmd")


def test_every_collection_is_in_the_index_and_named_by_both_its_names() -> None:
    for name, collection in COLLECTIONS.items():
        assert find(name) is find(collection.id) is collection
        assert len(select(collection, masks=False, limit=1))


def test_a_batch_is_bounded_in_bytes_and_in_series() -> None:
    sizes = [600_000_000, 600_000_000, 2_000_000_000, *[1] * 120]
    todo = [Series(str(n), str(n), 1, size) for n, size in enumerate(sizes)]
    found = [[each.bytes for each in batch] for batch in _batches(todo)]
    assert [len(batch) for batch in found] == [1, 1, 1, 50, 50, 20]
    assert [size for batch in found for size in batch] == sizes


# ---- the download, from a stand-in of the object store


class Store:
    """A bucket that anyone may read, with a file for each size of `SIZES`."""

    def __init__(self, minio: Any, folder: Path) -> None:
        self.url = minio.url
        self.client = minio.client()
        self.objects: dict[str, bytes] = {}
        generator, rows = np.random.default_rng(0), []
        for number, (patient, sizes) in enumerate(SIZES.items()):
            uuid = f"0000000{number}-0000-4000-8000-000000000000"
            for place, size in enumerate(sizes):
                self.objects[f"{uuid}/{place}.dcm"] = generator.bytes(1000 * size)
            rows.append(
                {
                    "collection_id": "cmmd",
                    "PatientID": patient,
                    "SeriesInstanceUID": f"1.2.{number}",
                    "StudyInstanceUID": f"1.2.3.{number}",
                    "Modality": "MG",
                    "SeriesDescription": None,
                    "instanceCount": len(sizes),
                    "series_size_MB": sum(sizes) / 1000,
                    "license_short_name": "CC BY 4.0",
                    "source_DOI": "10.0/none",
                    "aws_bucket": BUCKET,
                    "crdc_series_uuid": uuid,
                    "series_aws_url": f"s3://{BUCKET}/{uuid}/*",
                    "analysis_result_id": None,
                }
            )
        self.index = folder / "index.parquet"
        pd.DataFrame(rows).to_parquet(self.index)

    def put(self, *, only: Callable[[str], bool] = lambda key: True) -> None:
        """Make the bucket hold the objects whose key `only` accepts, and no other."""
        for key, content in self.objects.items():
            if only(key):
                self.client.put_object(Bucket=BUCKET, Key=key, Body=content)
            else:
                self.client.delete_object(Bucket=BUCKET, Key=key)

    def of(self, number: int) -> Callable[[str], bool]:
        return lambda key: key.startswith(f"0000000{number}")


@pytest.fixture
def store_stand_in(minio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    pytest.importorskip("idc_index", exc_type=ImportError)
    import idc_index.index as idc

    store = Store(minio, tmp_path)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["*"]},
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
            }
        ],
    }
    held = [bucket["Name"] for bucket in store.client.list_buckets()["Buckets"]]
    if BUCKET not in held:
        store.client.create_bucket(Bucket=BUCKET)
        store.client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    monkeypatch.setattr(index, "IDC_INDEX_PARQUET_FILEPATH", store.index)
    monkeypatch.setattr(idc, "aws_endpoint_url", idc.aws_endpoint_url)  # given back afterwards
    monkeypatch.setattr(fetching, "_BATCH_SERIES", 1)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield store


def fetch(store: Store, output: Path, *more: str) -> int:
    given = ["--output", str(output), "--endpoint", store.url, *more]
    return cli.main(["data", "fetch", "cmmd", *given])


def contents(output: Path) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.rglob("*.dcm"))}


def test_a_fetch_that_was_cut_off_continues_and_fetches_nothing_twice(
    store_stand_in: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, output = store_stand_in, tmp_path / "release"
    # of four series the store has the first, and two of the second's three files
    store.put(only=lambda key: store.of(0)(key) or (store.of(1)(key) and "/2.dcm" not in key))
    assert fetch(store, output) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert "3 of 4 series of cmmd did not arrive whole" in err
    assert "the same command continues" in err
    assert list(contents(output / "D1-0001")) == ["1.2.0/0.dcm", "1.2.0/1.dcm"]
    assert not (output / "D1-0002").exists()  # nothing half under its final name
    assert json.loads((output / "fetch.json").read_text())["complete"] is False

    # what is there cannot be fetched again: the store no longer has it
    held = (store.of(0), lambda key: store.of(1)(key) and "/2.dcm" not in key)
    store.put(only=lambda key: not any(each(key) for each in held))
    stamp = (output / "D1-0001/1.2.0/0.dcm").stat().st_mtime_ns
    assert fetch(store, output) == 0
    assert "1 of 4 series" in capsys.readouterr().out
    assert (output / "D1-0001/1.2.0/0.dcm").stat().st_mtime_ns == stamp
    names = {
        f"{patient}/1.2.{number}/{place}.dcm": store.objects[
            f"0000000{number}-0000-4000-8000-000000000000/{place}.dcm"
        ]
        for number, (patient, sizes) in enumerate(SIZES.items())
        for place in range(len(sizes))
    }
    assert contents(output) == names
    assert json.loads((output / "fetch.json").read_text())["complete"] is True
    assert not (output / ".partial").exists()

    store.put(only=lambda key: False)  # an empty store: the third time nothing is asked for
    assert fetch(store, output) == 0


def test_a_file_cut_short_or_lost_is_fetched_again_and_the_others_are_not(
    store_stand_in: Store, tmp_path: Path
) -> None:
    store, output = store_stand_in, tmp_path / "release"
    store.put()
    assert fetch(store, output) == 0
    whole = contents(output)
    broken, lost = output / "D1-0002/1.2.1/1.dcm", output / "D2-0003/1.2.2/0.dcm"
    broken.write_bytes(broken.read_bytes()[:-1])
    lost.unlink()
    store.put(only=lambda key: (store.of(1)(key) and "/1.dcm" in key) or store.of(2)(key))
    assert fetch(store, output) == 0
    assert contents(output) == whole


def test_a_limit_takes_whole_patients_and_a_larger_one_adds_to_them(
    store_stand_in: Store, tmp_path: Path
) -> None:
    store, output = store_stand_in, tmp_path / "release"
    store.put()
    assert fetch(store, output, "--limit", "2") == 0
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == ["D1-0001", "D1-0002"]
    store.put(only=lambda key: store.of(2)(key))
    assert fetch(store, output, "--limit", "3") == 0
    assert len(contents(output)) == 6


def test_a_store_that_cannot_be_reached_is_one_line(
    store_stand_in: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "release"
    nowhere = "http://127.0.0.1:9"
    code = cli.main(["data", "fetch", "cmmd", "--output", str(output), "--endpoint", nowhere])
    assert code == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert "http://127.0.0.1:9 cannot be reached" in err[0]
    assert "give the same command again" in err[0]
    assert contents(output) == {}
    assert [path for path in output.iterdir() if path.is_dir()] == []


def test_too_little_room_is_told_before_anything_is_asked(
    store_stand_in: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    free = SimpleNamespace(total=10**9, used=0, free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    monkeypatch.setattr("socket.socket", None)
    assert fetch(store_stand_in, tmp_path / "release") == 2
    # 320,000 bytes and two hundredths for the file system
    assert "cmmd needs 0.3 MB in" in capsys.readouterr().err


def test_two_fetches_into_a_folder_and_two_collections_in_one_are_refused(tmp_path: Path) -> None:
    with (
        fetching._only_process_in(tmp_path),
        pytest.raises(ConfigError, match="another fetch into"),
        fetching._only_process_in(tmp_path),
    ):
        raise AssertionError("entered twice")
    fetching._check_state(tmp_path, "cmmd")
    with pytest.raises(ConfigError, match="holds cmmd; give another --output for ea1141"):
        fetching._check_state(tmp_path, "ea1141")
    (tmp_path / "fetch.json").write_text("[")
    with pytest.raises(DataError, match="is broken; delete it"):
        fetching._check_state(tmp_path, "cmmd")


def test_a_series_is_whole_by_number_and_bytes(tmp_path: Path) -> None:
    for number, size in enumerate((3, 4)):
        (tmp_path / f"{number}.dcm").write_bytes(b"x" * size)
    assert _is_whole(tmp_path, Series("1", "1", 2, 7))
    assert not _is_whole(tmp_path, Series("1", "1", 2, 8))
    assert not _is_whole(tmp_path, Series("1", "1", 1, 7))
    assert not _is_whole(tmp_path / "none", Series("1", "1", 0, 0))
