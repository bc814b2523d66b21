"""Pixels put at the places of their records lie without gaps in the end, even after a kill."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammo.data.dataset import sha256_of
from mammo.data.slots import Slots
from mammo.errors import DataError

SHAPE = (2, 4, 3)
BYTES = 2 * 4 * 3 * 2


def slots(folder: Path, count: int = 7, per_shard: int = 3) -> Slots:
    folder.mkdir(exist_ok=True)
    return Slots(folder, SHAPE, "uint16", count, shard_bytes=per_shard * BYTES)


def image(number: int) -> np.ndarray:
    return np.arange(24, dtype=np.uint16).reshape(SHAPE) + 1000 * number


def mask(number: int) -> np.ndarray:
    return np.full((1, 4, 3), number, np.uint8)


def test_pixels_lie_at_their_place_whatever_the_order(tmp_path):
    room = slots(tmp_path)
    for number in (6, 0, 4):
        hashes = room.put(number, image(number), mask(number) if number == 4 else None)
        assert hashes["sha256"] == sha256_of(image(number))
        assert ("mask_sha256" in hashes) == (number == 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "images-0000.npy",
        "images-0001.npy",
        "images-0002.npy",
        "masks-0001.npy",
    ]
    second = np.load(tmp_path / "images-0001.npy", mmap_mode="r")
    assert (second.shape, second.dtype) == ((3, *SHAPE), np.uint16)
    np.testing.assert_array_equal(second, [0 * image(0), image(4), 0 * image(0)])
    np.testing.assert_array_equal(np.load(tmp_path / "masks-0001.npy")[1], mask(4))


def test_room_that_nobody_takes_costs_no_disk(tmp_path):
    room = Slots(tmp_path, (1, 1024, 1024), "uint16", 400)
    room.put(399, np.zeros((1, 1024, 1024), np.uint16), None)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == 128 + 400 * 2**21
    assert path.stat().st_blocks * 512 < 2**23


class Killed(BaseException):
    """Stands for a SIGKILL: nothing of ours may catch it."""


def check_squeezed(room: Slots, kept: list[int], marked: set[int], tmp_path: Path) -> None:
    places = room.squeeze(kept, [number in marked for number in kept], tmp_path / "moved")
    assert len({*places.itertuples(index=False)}) == len(kept)
    for number, (shard, index) in zip(kept, places.itertuples(index=False), strict=True):
        np.testing.assert_array_equal(np.load(room.folder / shard)[index], image(number))
        if number in marked:
            masks = np.load(room.folder / shard.replace("images", "masks"))
            np.testing.assert_array_equal(masks[index], mask(number))
    lengths = [len(np.load(path)) for path in sorted(room.folder.glob("images-*"))]
    full, rest = divmod(len(kept), room.per_shard)
    assert lengths == [room.per_shard] * full + [rest] * bool(rest)
    with_masks = {
        shard for number, shard in zip(kept, places["shard"], strict=True) if number in marked
    }
    found = {path.name.replace("masks", "images") for path in room.folder.glob("masks-*")}
    assert found == with_masks


@given(data=st.data(), count=st.integers(1, 9), per_shard=st.integers(1, 4))
def test_gaps_are_closed_though_it_was_killed_at_any_moment(
    tmp_path_factory, data, count, per_shard
):
    tmp_path = tmp_path_factory.mktemp("slots")
    numbers = st.integers(0, count - 1)
    kept = sorted(data.draw(st.sets(numbers, min_size=1)))
    marked = data.draw(st.sets(numbers)) & set(kept)
    room = slots(tmp_path / "pixels", count, per_shard)
    for number in data.draw(st.permutations(kept)):
        room.put(number, image(number), mask(number) if number in marked else None)
    before = data.draw(st.integers(0, 30))  # calls that change something, until it is killed
    with pytest.MonkeyPatch.context() as patch:
        left = [before]

        def mortal(real):
            def call(*rest, **named):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return real(*rest, **named)

            return call

        for owner, name in ((os, "pwrite"), (Path, "touch"), (Path, "unlink"), (os, "fsync")):
            patch.setattr(owner, name, mortal(getattr(owner, name)))
        with contextlib.suppress(Killed):
            room.squeeze(kept, [number in marked for number in kept], tmp_path / "moved")
    check_squeezed(room, kept, marked, tmp_path)


def test_an_image_of_another_shape_or_depth_is_a_bug(tmp_path):
    room = slots(tmp_path)
    with pytest.raises(ValueError, match="expected"):
        room.put(0, image(0).astype(np.uint8), None)
    with pytest.raises(ValueError, match="mask"):
        room.put(0, image(0), np.zeros((1, 3, 4), np.uint8))


def test_a_disk_too_small_is_told_before_the_first_image(tmp_path, monkeypatch):
    room = Slots(tmp_path, (1, 1000, 1000), "uint16", 500)  # 1 GB

    class Usage:
        free = 900_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    line = r"500 images need 1 GB and the disk of .* has 0.9 GB free; free space there or choose"
    with pytest.raises(DataError, match=line):
        room.check_room()
    Usage.free = 1_000_000_000
    room.check_room()


def test_an_error_of_the_disk_names_the_file(tmp_path):
    room = slots(tmp_path / "pixels")
    (tmp_path / "pixels" / "images-0000.npy").mkdir()
    with pytest.raises(IsADirectoryError, match=r"images-0000\.npy"):
        room.put(0, image(0), None)
