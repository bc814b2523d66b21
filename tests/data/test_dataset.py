"""A dataset on disk is whole, unchanged and quick to open, or one line says why not."""

import errno
import hashlib
import json
import math
import pickle
import struct
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st

from mammo.data import writer as module
from mammo.data.classes import ClassMap
from mammo.data.dataset import Dataset, essence, sha256_of
from mammo.data.manifest import (
    COLUMNS,
    check_manifest,
    make_manifest,
    manifest_digest,
    rows_digest,
)
from mammo.data.writer import DatasetWriter, seal
from mammo.errors import ConfigError, DataError

ROWS = small.real_rows({"benign": [2, 1], "malignant": [1, 2]})
SHAPE = small.SHAPE


def writer(folder: Path, *, name: str = "w", dtype: str = "uint16") -> DatasetWriter:
    return DatasetWriter(
        folder / "w.partial", name=name, classes=small.TWO, shape=SHAPE, dtype=dtype
    )


def image(value: int, dtype: str = "uint16") -> np.ndarray:
    return np.full(SHAPE, value, dtype)


def test_pixels_come_back_as_stored_and_as_fractions_of_the_range(tmp_path):
    data = small.dataset(tmp_path, ROWS)
    stored = np.stack([small.pixels(row["image_id"]) for row in ROWS])
    np.testing.assert_array_equal(data.raw([4, 0, 4]), stored[[4, 0, 4]])
    np.testing.assert_array_equal(data.images(range(6)), stored.astype(np.float32) / 65535)
    assert data.label_ids().tolist() == [0, 0, 0, 1, 1, 1]
    assert (data.about["images"], data.about["patients"]) == (6, 4)
    assert data.about["counts"] == {"train/benign": 3, "train/malignant": 3}
    data.verify()


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
def test_the_ends_of_the_range_are_zero_and_one_exactly(tmp_path, dtype, top):
    w = writer(tmp_path, dtype=dtype)
    w.add(image(0, dtype), ROWS[0])
    w.add(image(top, dtype), ROWS[1])
    assert w.finish(tmp_path).images([0, 1])[:, 0, 0, 0].tolist() == [0.0, 1.0]


def test_images_spread_over_shards_read_like_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 2 * 128)  # two images a shard
    w = writer(tmp_path)
    for number, row in enumerate(ROWS[:5]):
        mask = np.full(SHAPE, number, np.uint8) if number in (1, 4) else None
        w.add(image(number * 100), row, mask)
    data = w.finish(tmp_path)
    names = sorted(path.name for path in data.folder.glob("*.npy"))
    assert [name for name in names if name.startswith("images")] == [
        "images-0000.npy",
        "images-0001.npy",
        "images-0002.npy",
    ]
    assert data.raw([4, 1, 3, 0])[:, 0, 0, 0].tolist() == [400, 100, 300, 0]
    assert data.masks([0, 4, 1, 3])[:, 0, 0, 0].tolist() == [0, 4, 1, 0]
    assert data.masks([0])[0].max() == 0
    assert data.raw([]).shape == (0, *SHAPE)
    assert np.load(data.folder / "images-0002.npy").shape == (1, *SHAPE)
    data.verify()


def test_eight_bit_images_among_sixteen_keep_their_brightness(tmp_path):
    deep = small.dataset(tmp_path, ROWS[:2], name="deep")
    w = writer(tmp_path, name="flat", dtype="uint8")
    w.add(image(128, "uint8"), ROWS[2])
    flat = w.finish(tmp_path)
    frame = pd.concat([deep.placed(), flat.placed()], ignore_index=True)
    both = Dataset.view(deep, frame, [flat])
    np.testing.assert_array_equal(both.images([0, 2])[1], flat.images([0])[0])
    np.testing.assert_array_equal(both.images([2]), flat.images([0]))
    np.testing.assert_array_equal(both.images([2, 1])[1], deep.images([1])[0])


def test_a_dataset_that_points_into_others_finds_them_beside_it_or_where_they_were(tmp_path):
    here = small.dataset(tmp_path / "here", ROWS[:3], name="here")
    away = small.dataset(tmp_path / "away", ROWS[3:], name="away")
    frame = pd.concat([here.placed(), away.placed()], ignore_index=True)
    about = {"schema_version": 1, "name": "both", "shape": list(SHAPE)}
    about["parents"] = [{"digest": away.digest, "uri": str(away.folder), "name": "away"}]
    seal(
        tmp_path / "p",
        tmp_path / "here",
        frame,
        small.TWO,
        {**about, "classes": here.about["classes"]},
    )
    both = next(
        Dataset(each)
        for each in (tmp_path / "here").iterdir()
        if json.loads((each / "dataset.json").read_text())["name"] == "both"
    )
    both.verify()
    np.testing.assert_array_equal(both.raw([5])[0], small.pixels(ROWS[5]["image_id"]))
    twice = both.placed()
    assert twice["shard"].tolist() == both.manifest["shard"].tolist()
    assert both.owners().keys() == {both.digest, here.digest, away.digest}


def test_equal_data_has_an_equal_digest_wherever_its_pixels_lie(tmp_path, monkeypatch):
    one = small.dataset(tmp_path / "a", ROWS)
    monkeypatch.setattr(module, "SHARD_BYTES", 128)
    two = small.dataset(tmp_path / "b", ROWS)
    assert one.digest == two.digest
    assert two.manifest["shard"].nunique() == 6
    again = small.dataset(tmp_path / "a", ROWS)
    assert (again.folder, len(list((tmp_path / "a").iterdir()))) == (one.folder, 1)


def test_the_order_of_rows_counts_because_seeded_draws_follow_it(tmp_path):
    assert small.dataset(tmp_path, ROWS).digest != small.dataset(tmp_path, ROWS[::-1]).digest


def test_the_digest_is_of_lengths_utf8_and_little_endian_numbers_and_of_nothing_else():
    frame = pd.DataFrame(
        {"b": ["ä", "", "xyz"], "a": [1, -2, 3], "c": [0.5, math.nan, -0.0], "d": [True, False, 1]}
    ).astype({"b": "str", "d": "bool"})

    def of(kind: bytes, form: str, values: list, content: bytes = b"") -> str:
        return hashlib.sha256(kind + struct.pack(f"<3{form}", *values) + content).hexdigest()

    columns = {
        "a": of(b"int", "q", [1, -2, 3]),
        "b": of(b"text", "q", [2, 0, 3], "äxyz".encode()),
        "c": of(b"float", "d", [0.5, math.nan, 0.0]),
        "d": of(b"int", "q", [1, 0, 1]),
    }
    text = "".join(f"{name}\0{digest}\n" for name, digest in columns.items())
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert rows_digest(frame) == expected
    assert rows_digest(frame.astype({"b": "category", "a": "int32"})) == expected
    doubled = pd.concat([frame, frame], ignore_index=True)
    assert rows_digest(doubled.iloc[3:]) == expected
    assert rows_digest(doubled) != expected


@given(st.lists(st.text(max_size=3), min_size=1, max_size=6), st.data())
def test_two_columns_of_texts_share_a_digest_only_when_they_are_equal(texts, data):
    other = data.draw(st.one_of(st.permutations(texts), st.just(["".join(texts)])))
    digests = {
        rows_digest(pd.DataFrame({"a": pd.Series(each, dtype="str")})) for each in (texts, other)
    }
    assert len(digests) == (1 if texts == list(other) else 2)


def test_a_missing_text_is_not_an_empty_one_and_survives_the_file(tmp_path):
    frames = [pd.DataFrame({"a": pd.Series(["x", each], dtype="object")}) for each in ("", None)]
    one, two = map(rows_digest, frames)
    assert one != two
    frames[1].to_parquet(tmp_path / "a.parquet", index=False)
    assert rows_digest(pd.read_parquet(tmp_path / "a.parquet")) == two


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"salt": "other"},
        {"about": {"split_seed": 8}},
        {"about": {"intensity": "percentile"}},
        {"classes": ClassMap("malignancy2", ("benign", "malignant"), "benign", "pathology")},
        {"dtype": "uint8"},
        {"seen": small.seen_by("run1", ["p"])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_a_later_step_depends_on_changes_the_digest(tmp_path, change):
    assert small.dataset(tmp_path, ROWS).digest != small.dataset(tmp_path, ROWS, **change).digest


def test_a_label_a_split_and_a_pixel_each_change_the_digest(tmp_path):
    frame = small.dataset(tmp_path, ROWS).manifest
    digests = {manifest_digest(frame, {})}
    for column, value in (("label", "malignant"), ("split", "val"), ("sha256", "0"), ("fold", 1)):
        changed = frame.copy()
        changed.loc[0, column] = value
        digests.add(manifest_digest(changed, {}))
    assert len(digests) == 5


def test_changed_pixels_and_a_changed_manifest_are_found(tmp_path):
    data = small.dataset(tmp_path, ROWS)
    shard = np.lib.format.open_memmap(data.folder / "images-0000.npy", mode="r+")
    shard[2, 0, 3, 3] ^= 1
    shard.flush()
    with pytest.raises(DataError, match=f"pixels of image {ROWS[2]['image_id']} have changed"):
        Dataset(data.folder).verify()
    shard[2, 0, 3, 3] ^= 1
    shard.flush()
    Dataset(data.folder).verify()
    frame = data.manifest.copy()
    frame.loc[0, "age"] = 50.0
    frame.to_parquet(data.folder / "manifest.parquet", index=False)
    with pytest.raises(DataError, match="digest is"):
        Dataset(data.folder).verify()


def test_a_changed_mask_is_found(tmp_path):
    w = writer(tmp_path)
    w.add(image(1), ROWS[0], np.ones(SHAPE, np.uint8))
    data = w.finish(tmp_path)
    masks = np.lib.format.open_memmap(data.folder / "masks-0000.npy", mode="r+")
    masks[0, 0, 0, 0] = 0
    masks.flush()
    with pytest.raises(DataError, match=f"mask of image {ROWS[0]['image_id']} has changed"):
        Dataset(data.folder).verify()


def test_a_folder_that_is_no_dataset_or_a_broken_one_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"is not a dataset: it has no dataset\.json"):
        Dataset(tmp_path)
    data = small.dataset(tmp_path, ROWS)
    (data.folder / "images-0000.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"images-0000\.npy cannot be used"):
        Dataset(data.folder).raw([0])
    (data.folder / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"manifest\.parquet cannot be used"):
        len(Dataset(data.folder))
    about = data.folder / "dataset.json"
    about.write_text(about.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(DataError, match="has schema version 9, this mammo reads 1"):
        Dataset(data.folder)
    for broken in ("{", "[]", "{}"):
        about.write_text(broken)
        with pytest.raises(DataError, match=r"dataset\.json cannot be used"):
            Dataset(data.folder)


def test_a_dataset_without_an_image_is_refused(tmp_path):
    with pytest.raises(DataError, match="'w' would be empty"):
        writer(tmp_path).finish(tmp_path / "done")
    assert not (tmp_path / "done").exists()


def test_a_full_disk_leaves_nothing_under_the_final_name(tmp_path, monkeypatch):
    def full(*rest: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    w = writer(tmp_path)
    w.add(image(1), ROWS[0])
    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        w.finish(tmp_path / "done")
    assert not (tmp_path / "done").exists() or not list((tmp_path / "done").iterdir())


def test_an_image_of_another_shape_or_depth_is_a_bug(tmp_path):
    w = writer(tmp_path)
    for wrong in (np.zeros((1, 8, 9), np.uint16), np.zeros(SHAPE, np.uint8)):
        with pytest.raises(ValueError, match="expected"):
            w.add(wrong, ROWS[0])
    with pytest.raises(ValueError, match="mask"):
        w.add(image(0), ROWS[0], np.zeros((1, 4, 4), np.uint8))


def test_an_opened_dataset_travels_to_a_worker_without_its_pixels(tmp_path):
    data = small.dataset(tmp_path, ROWS, shape=(1, 64, 64))
    before = data.raw([3])
    packed = pickle.dumps(data)
    assert len(packed) < 20_000
    np.testing.assert_array_equal(pickle.loads(packed).raw([3]), before)


HALF_A_MILLION = 500_000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A sealed dataset of half a million rows, every column filled as a release would."""
    rng = np.random.default_rng(0)
    number = np.arange(HALF_A_MILLION)
    patient = number // 4

    def texts(values):
        return pd.Series(values, dtype="str")

    def of(names, which):
        return texts(np.array(names)[which % len(names)])

    def identifiers(which):
        return texts([hashlib.sha256(b"%d" % each).hexdigest()[:16] for each in which])

    given = {
        "dataset": texts(["many"] * len(number)),
        "group_id": identifiers(patient),
        "exam_id": identifiers(patient + 10**7),
        "image_id": identifiers(number + 10**8),
        "laterality": of(["L", "R"], number),
        "view": of(["CC", "MLO"], number // 2),
        "label": of(["benign", "malignant"], patient),
        "label_kind": texts(["pathology"] * len(number)),
        "age": rng.integers(30, 90, len(number)).astype(float),
        "vendor": of(["a", "b", "c"], patient),
        "sha256": texts([hashlib.sha256(b"%d" % each).hexdigest() for each in number]),
        "split": of(["train", "val", "test"], patient),
        "shard": texts(np.char.mod("images-%04d.npy", number // 30_000)),
        "index": number % 30_000,
    }
    for name, (kind, empty) in COLUMNS.items():
        if name not in given and kind == "float64":
            given[name] = rng.random(len(number))
        given.setdefault(name, pd.Series([empty], dtype=kind).repeat(len(number)).to_numpy())
    frame = pd.DataFrame(given)[[*COLUMNS]].astype({n: kind for n, (kind, _) in COLUMNS.items()})
    about = {
        "schema_version": 1,
        "name": "many",
        "shape": [1, 8, 8],
        "classes": small.TWO.to_json(),
    }
    folder = tmp_path_factory.mktemp("many")
    return seal(folder / "w.partial", folder, frame, small.TWO, about).folder


def quickest(work, times=3):
    """Seconds of the fastest of several calls, of one core, however busy the machine is."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


@pytest.mark.doors
def test_half_a_million_rows_open_and_slice_within_a_second(many):
    def use():
        data = Dataset(many)
        rows = data.manifest
        chosen = rows[(rows["split"] == "train") & (rows["view"] == "CC")]
        assert len(chosen) == 83_334
        assert rows.iloc[[0, 7]]["label"].tolist() == ["benign", "malignant"]
        assert data.label_ids().sum() == HALF_A_MILLION // 2
        assert data._shard_codes[0][-1] == 16

    assert quickest(lambda: Dataset(many)) < 0.05  # dataset.json alone
    assert quickest(use) < 1.0


@pytest.mark.doors
def test_half_a_million_rows_are_checked_and_hashed_within_seconds(many):
    data = Dataset(many)
    found = manifest_digest(data.manifest, essence(data.about, data.generator_training))
    assert found == data.digest
    assert quickest(lambda: check_manifest(data.manifest, small.TWO.names)) < 1.0
    assert quickest(lambda: manifest_digest(data.manifest, {})) < 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, r"has split 'dev', which should be one of train, val, test"),
        ({"label": "cyst"}, r"has label 'cyst'"),
        ({"group_id": ""}, r"has group_id '', which should be a patient"),
        ({"image_id": "benign-0-1"}, r"'benign-0-1' has image_id .* unique"),
        ({"split": "test"}, r"patient benign-0 is in splits test and train"),
        ({"fold": 1}, r"patient benign-0 is in folds 0 and 1"),
        ({"is_synthetic": True, "split": "val"}, r"is synthetic and in split 'val'"),
        ({"is_synthetic": True, "split": "train"}, r"has generator_run_id ''"),
    ],
)
def test_a_manifest_that_breaks_the_contract_is_refused(change, message):
    rows = [{**row, "fold": 0} for row in ROWS]
    rows[0] |= change
    with pytest.raises(DataError, match=message):
        check_manifest(make_manifest(rows), small.TWO.names)


def test_a_fold_in_the_test_split_and_a_missing_column_are_refused():
    rows = [{**row, "split": "test", "fold": 0} for row in ROWS]
    with pytest.raises(DataError, match=r"has fold .*0.*, which should be -1 in the test split"):
        check_manifest(make_manifest(rows), small.TWO.names)
    with pytest.raises(DataError, match="lacks the columns sha256, view"):
        check_manifest(make_manifest(ROWS).drop(columns=["view", "sha256"]), small.TWO.names)


def test_columns_a_row_lacks_get_their_empty_value_and_others_are_kept():
    frame = make_manifest([{"image_id": "a", "age": None, "scanner": 3}, {"image_id": "b"}])
    assert [*frame] == [*COLUMNS, "scanner"]
    assert frame["fold"].tolist() == [-1, -1]
    assert frame["is_synthetic"].tolist() == [False, False]
    assert frame["age"].isna().all()
    assert frame["view"].tolist() == ["", ""]
    for name, (kind, _) in COLUMNS.items():
        assert frame[name].dtype == kind, name


def test_pixel_hashes_tell_type_and_shape_apart():
    zeros = np.zeros((1, 2, 4), np.uint8)
    others = [zeros.reshape(1, 4, 2), np.zeros((1, 2, 2), np.uint16), zeros + 1]
    assert len({sha256_of(each) for each in (zeros, *others)}) == 4


def test_a_class_map_of_one_class_or_with_a_foreign_positive_is_refused():
    with pytest.raises(ConfigError, match="two distinct names or more"):
        ClassMap("t", ("a", "a"), "a", "pathology")
    with pytest.raises(ConfigError, match="positive class 'c' is not one of"):
        ClassMap("t", ("a", "b"), "c", "pathology")
    with pytest.raises(ConfigError, match="label_kind 'guess'"):
        ClassMap("t", ("a", "b"), "a", "guess")
    with pytest.raises(DataError, match="class 'c' is not in the class map"):
        small.TWO.id_of("c")
