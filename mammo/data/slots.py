"""Pixel files with a place for every record, filled in any order and by several processes."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.dataset import sha256_of
from mammo.data.writer import SHARD_BYTES, npy_header
from mammo.errors import DataError

_HEADER = 128  # bytes of an .npy header


@dataclass(frozen=True)
class Slots:
    """Room for `count` images (C, H, W) of `dtype` in `folder`, and for a mask of each.

    The files have holes until they are filled, so that room nobody takes costs nothing.
    """

    folder: Path
    shape: tuple[int, int, int]
    dtype: str
    count: int
    shard_bytes: int = SHARD_BYTES

    @property
    def per_shard(self) -> int:
        return max(1, self.shard_bytes // self._size("images"))

    def put(
        self, number: int, image: NDArray[Any], mask: NDArray[np.uint8] | None
    ) -> dict[str, str]:
        """Write the image of record `number`, and its mask; returns their hashes by column."""
        expected = self.shape, np.dtype(self.dtype)
        if (image.shape, image.dtype) != expected:
            raise ValueError(f"image {image.shape} {image.dtype}, expected {expected}")
        self._write("images", number, np.ascontiguousarray(image).tobytes())
        hashes = {"sha256": sha256_of(image)}
        if mask is not None:
            flat = (1, *self.shape[1:])
            if mask.shape != flat or mask.dtype != np.uint8:
                raise ValueError(f"mask {mask.shape} {mask.dtype}, expected {flat} uint8")
            self._write("masks", number, np.ascontiguousarray(mask).tobytes())
            hashes["mask_sha256"] = sha256_of(mask)
        return hashes

    def read(self, number: int) -> NDArray[Any]:
        """The image (C, H, W) of record `number` as it was put, before squeeze moves any."""
        return np.frombuffer(self._read("images", number), self.dtype).reshape(self.shape)

    def flush(self, numbers: Iterable[int]) -> None:
        """Return when the pixels of `numbers` are on the disk and would survive a power cut."""
        for shard in sorted({number // self.per_shard for number in numbers}):
            for kind in ("images", "masks"):
                if self._path(kind, shard).exists():
                    with self._opened(kind, shard) as file:
                        os.fdatasync(file)

    def check_room(self) -> None:
        """DataError when the disk cannot hold what is still to be written."""
        existing = [path.stat().st_blocks * 512 for path in self.folder.glob("*.npy")]
        needed = self.count * self._size("images") - sum(existing)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"{self.count} images need {needed / 1e9:.3g} GB and the disk of {self.folder} has "
                f"{free / 1e9:.3g} GB free; free space there or choose another --work_dir"
            )

    def squeeze(self, kept: Sequence[int], masked: Sequence[bool], moved: Path) -> pd.DataFrame:
        """Close the gaps that records without an image left; columns shard and index of `kept`.

        The last images move into the gaps. `moved` is a file that appears when they have, and
        before the ends are cut off, so that this can be killed and called again. A folder that is
        not there any more was sealed, and its files are left alone.
        """
        have = set(kept)
        gaps = [slot for slot in range(len(kept)) if slot not in have]
        places = dict(zip(sorted(slot for slot in kept if slot >= len(kept)), gaps, strict=True))
        slots = [places.get(number, number) for number in kept]
        if self.folder.is_dir() and not moved.exists():
            marked = {number for number, mask in zip(kept, masked, strict=True) if mask}
            for old, new in places.items():
                for kind in ("images", "masks"):
                    if kind == "images" or old in marked:
                        self._write(kind, new, self._read(kind, old))
            self.flush(places.values())
            moved.touch()
        if self.folder.is_dir():
            self._cut(len(kept), {slot for slot, mask in zip(slots, masked, strict=True) if mask})
        shards = [f"images-{slot // self.per_shard:04d}.npy" for slot in slots]
        return pd.DataFrame(
            {
                "shard": pd.Series(shards, dtype="str"),
                "index": pd.Series([slot % self.per_shard for slot in slots], dtype="int64"),
            }
        )

    def _cut(self, count: int, marked: set[int]) -> None:
        """Leave `count` slots in the files of images, and as many in those of masks with any."""
        with_masks = {slot // self.per_shard for slot in marked}
        for shard in range(-(-self.count // self.per_shard)):
            held = min(self.per_shard, count - shard * self.per_shard)
            for kind in ("images", "masks"):
                path = self._path(kind, shard)
                if held <= 0 or (kind == "masks" and shard not in with_masks):
                    path.unlink(missing_ok=True)
                    continue
                with path.open("r+b") as file:
                    file.write(self._header(kind, held))
                    file.truncate(_HEADER + held * self._size(kind))
                    file.flush()
                    os.fsync(file.fileno())

    def _write(self, kind: str, number: int, content: bytes) -> None:
        with self._opened(kind, number // self.per_shard) as file:
            view = memoryview(content)
            start = self._start(kind, number)
            while view:  # a write may stop early, and at a full disk does
                written = os.pwrite(file, view, start)
                view, start = view[written:], start + written

    def _read(self, kind: str, number: int) -> bytes:
        with self._opened(kind, number // self.per_shard) as file:
            return os.pread(file, self._size(kind), self._start(kind, number))

    @contextmanager
    def _opened(self, kind: str, shard: int) -> Iterator[int]:
        """The file of a shard at its full length, made when it is not there; any process may."""
        path = self._path(kind, shard)
        # written and not mapped: of a full disk a memory map learns by a deadly signal
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            full = _HEADER + min(self.per_shard, self.count) * self._size(kind)
            if os.fstat(file).st_size < full:
                os.pwrite(file, self._header(kind, min(self.per_shard, self.count)), 0)
                os.ftruncate(file, full)
            yield file
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(file)

    def _start(self, kind: str, number: int) -> int:
        return _HEADER + number % self.per_shard * self._size(kind)

    def _size(self, kind: str) -> int:
        """Bytes of one image or mask."""
        if kind == "masks":
            return prod(self.shape[1:])
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def _header(self, kind: str, count: int) -> bytes:
        if kind == "masks":
            return npy_header(count, (1, *self.shape[1:]), np.dtype(np.uint8))
        return npy_header(count, self.shape, np.dtype(self.dtype))

    def _path(self, kind: str, shard: int) -> Path:
        return self.folder / f"{kind}-{shard:04d}.npy"
