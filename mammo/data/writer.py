"""Writes a dataset: it has its final name when it is whole, or is not there at all."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.classes import ClassMap
from mammo.data.dataset import Dataset, essence, sha256_of
from mammo.data.manifest import check_manifest, make_manifest, manifest_digest
from mammo.data.stored import SCHEMA_VERSION
from mammo.errors import DataError

SHARD_BYTES = 1 << 30  # one shard is at most 1 GiB, so that an upload can be retried


class DatasetWriter:
    """Writes a dataset beside its final place; `finish` renames it there when it is whole.

    `dtype` is uint8 or uint16; images are given as stored, (C, H, W). As a context it removes what
    it wrote when the block raises: nothing half-written is left, whatever ends it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        classes: ClassMap,
        shape: tuple[int, int, int],
        dtype: str,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.about = described(name, classes, shape, dtype) | dict(about or {})
        self.classes = classes
        self.rows: list[dict[str, Any]] = []
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._per_shard = max(1, SHARD_BYTES // (int(np.prod(shape)) * self._dtype.itemsize))
        self._shard = _Shard(folder, 0, shape, self._dtype)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def add(
        self,
        image: NDArray[Any],
        row: Mapping[str, Any],
        mask: NDArray[np.uint8] | None = None,
    ) -> None:
        """Append one image (C, H, W) of the dataset's type with its manifest row."""
        if image.shape != self._shape or image.dtype != self._dtype:
            raise ValueError(
                f"image {image.shape} {image.dtype}, expected {self._shape} {self._dtype}"
            )
        flat = (1, *self._shape[1:])
        if mask is not None and (mask.shape != flat or mask.dtype != np.uint8):
            raise ValueError(f"mask {mask.shape} {mask.dtype}, expected {flat} uint8")
        if self._shard.count == self._per_shard:
            self._shard.close()
            self._shard = _Shard(self.folder, self._shard.number + 1, self._shape, self._dtype)
        place = {"shard": self._shard.name, "index": self._shard.count, "sha256": sha256_of(image)}
        if mask is not None:
            place["mask_sha256"] = sha256_of(mask)
        self._shard.add(image, mask)
        self.rows.append({**row, **place})

    def finish(
        self,
        datasets: Path,
        *,
        manifest: pd.DataFrame | None = None,
        generator_training: pd.DataFrame | None = None,
    ) -> Dataset:
        """Check and seal the dataset as `datasets`/<digest>; returns it opened.

        `manifest` replaces the rows as they were added (after splitting, say).
        """
        self._shard.close()
        frame = make_manifest(self.rows) if manifest is None else manifest
        return seal(self.folder, datasets, frame, self.classes, self.about, generator_training)

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()

    def discard(self) -> None:
        """Remove what was written: the dataset will not be finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


def described(
    name: str, classes: ClassMap, shape: tuple[int, int, int], dtype: str
) -> dict[str, Any]:
    """What dataset.json says of every dataset; `seal` adds digest and counts."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "classes": classes.to_json(),
        "shape": list(shape),
        "dtype": dtype,
    }


def digest_of(
    frame: pd.DataFrame, about: Mapping[str, Any], generator_training: pd.DataFrame | None = None
) -> str:
    """Digest of the dataset that `seal` would make of the same."""
    return manifest_digest(frame, essence(about, generator_training))


def seal(
    folder: Path,
    datasets: Path,
    frame: pd.DataFrame,
    classes: ClassMap,
    about: Mapping[str, Any],
    generator_training: pd.DataFrame | None = None,
    find: Callable[[str], Path] | None = None,
) -> Dataset:
    """Check `frame`, write the tables into `folder` and rename it to `datasets`/<digest>."""
    if not len(frame):
        raise DataError(f"dataset {about['name']!r} would be empty: no image was accepted")
    check_manifest(frame, classes.names)
    digest = digest_of(frame, about, generator_training)
    counts = frame.groupby(["split", "label"]).size()
    content = {
        **about,
        "digest": digest,
        "images": len(frame),
        "patients": int(frame.loc[~frame["is_synthetic"], "group_id"].nunique()),
        "counts": {f"{split}/{label}": int(count) for (split, label), count in counts.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "manifest.parquet", index=False)
    if generator_training is not None and len(generator_training):
        generator_training.to_parquet(folder / "generator_training.parquet", index=False)
    (folder / "dataset.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    final = datasets / digest
    datasets.mkdir(parents=True, exist_ok=True)
    try:
        folder.replace(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(folder)  # equal digests mean equal data; another process may have been first
    return Dataset(final, find)


class _Shard:
    """One growing .npy file of images and, once a mask comes, one of masks beside it."""

    def __init__(
        self, folder: Path, number: int, shape: tuple[int, int, int], dtype: np.dtype[Any]
    ):
        self.name = f"images-{number:04d}.npy"
        self.number = number
        self.count = 0
        self._folder = folder
        self._shape = shape
        self._dtype = dtype
        self._masks: dict[int, NDArray[np.uint8]] = {}

    def add(self, image: NDArray[Any], mask: NDArray[np.uint8] | None) -> None:
        # opened anew for each image: a run that fails in between leaves no open file
        with (self._folder / self.name).open("ab") as file:
            if not self.count:
                file.write(npy_header(0, self._shape, self._dtype))
            file.write(np.ascontiguousarray(image).tobytes())
        if mask is not None:
            self._masks[self.count] = mask
        self.count += 1

    def close(self) -> None:
        if not self.count:
            return
        with (self._folder / self.name).open("r+b") as file:
            file.write(npy_header(self.count, self._shape, self._dtype))
            file.flush()
            os.fsync(file.fileno())
        if self._masks:
            shape = (self.count, 1, *self._shape[1:])
            path = self._folder / self.name.replace("images-", "masks-")
            masks = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
            for index, mask in self._masks.items():
                masks[index] = mask
            masks.flush()


def npy_header(count: int, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> bytes:
    """Header of an .npy file of `count` images, always 128 bytes, so that it can be rewritten."""
    size = f"({count}, {shape[0]}, {shape[1]}, {shape[2]})"
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {size}, }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"
