"""A dataset on disk: manifest, class map and memory-mapped pixels, whole or not there at all."""

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.classes import ClassMap
from mammo.data.manifest import check_manifest, make_manifest, manifest_digest
from mammo.errors import DataError

SCHEMA_VERSION = 1
SHARD_BYTES = 1 << 30  # one shard is at most 1 GiB, so that an upload can be retried
_FILES = ("dataset.json", "manifest.parquet")


class Dataset:
    """An opened dataset: `manifest` (pandas), `classes`, and pixels by row number.

    `find(digest)` returns the folder of another dataset whose pixels this one points into.
    """

    def __init__(self, folder: Path, find: Callable[[str], Path] | None = None) -> None:
        for name in _FILES:
            if not (folder / name).is_file():
                raise DataError(f"{folder} is not a dataset: it has no {name}")
        self.folder = folder
        self._find = find
        self._maps: dict[str, NDArray[Any]] = {}
        try:
            self.about: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
            self.classes = ClassMap.from_json(self.about["classes"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / 'dataset.json'} cannot be read: {error}") from None
        if self.about["schema_version"] != SCHEMA_VERSION:
            raise DataError(
                f"{folder} has schema version {self.about['schema_version']}, "
                f"this mammo reads {SCHEMA_VERSION}"
            )

    @classmethod
    def view(
        cls, base: "Dataset", manifest: pd.DataFrame, others: Sequence["Dataset"]
    ) -> "Dataset":
        """Rows of several opened datasets as one, in memory only; `base` says what they are.

        Each shard in `manifest` is "<digest>/<file>" (see `placed`); no pixels are copied.
        """
        folders: dict[str, Path] = {}
        for each in (base, *others):
            folders |= each.owners()
        made = cls.__new__(cls)
        made.folder, made.about, made.classes = base.folder, dict(base.about), base.classes
        made.manifest = manifest
        made._find = folders.__getitem__
        made._maps = {}
        return made

    def placed(self) -> pd.DataFrame:
        """The manifest with every shard as "<digest>/<file>", for use in another dataset."""
        shard = self.manifest["shard"]
        return self.manifest.assign(
            shard=shard.where(shard.str.contains("/"), f"{self.digest}/" + shard)
        )

    def owners(self) -> dict[str, Path]:
        """Folder by digest of this dataset and of those whose pixels it points into."""
        owners = {str(shard).rpartition("/")[0] for shard in self.manifest["shard"].unique()}
        return {owner or self.digest: self._owner(owner) for owner in sorted({"", *owners})}

    @property
    def name(self) -> str:
        return str(self.about["name"])

    @property
    def digest(self) -> str:
        return str(self.about["digest"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.about["shape"]
        return int(channels), int(height), int(width)

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """The rows; treat them as read-only."""
        try:
            return pd.read_parquet(self.folder / "manifest.parquet")
        except (ValueError, OSError) as error:
            raise DataError(f"{self.folder / 'manifest.parquet'} cannot be read: {error}") from None

    @cached_property
    def generator_training(self) -> pd.DataFrame:
        """What the generators of the synthetic rows were trained on.

        Columns run_id, salt, group_id, sha256; empty for a dataset of real images.
        """
        path = self.folder / "generator_training.parquet"
        if path.is_file():
            return pd.read_parquet(path)
        return pd.DataFrame({name: pd.Series(dtype="str") for name in GENERATOR_TRAINING_COLUMNS})

    def __len__(self) -> int:
        return len(self.manifest)

    def raw(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Stored pixels of `rows`: (len(rows), C, H, W), uint8 or uint16."""
        return self._gather(rows, "images")

    def images(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[np.float32]:
        """Pixels of `rows` as float32 (len(rows), C, H, W) in [0, 1]."""
        stored = self.raw(rows)
        out = stored.astype(np.float32)
        out /= np.float32(np.iinfo(stored.dtype).max)  # in place: a second array costs as much
        return out

    def masks(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[np.uint8]:
        """Masks of `rows`: uint8 (len(rows), 1, H, W), 0 outside; all 0 where there is none."""
        _, height, width = self.shape
        out = np.zeros((len(rows), 1, height, width), np.uint8)
        marked = self.manifest["mask_sha256"].to_numpy()[np.asarray(rows, int)] != ""
        if marked.any():
            out[marked] = self._gather(np.asarray(rows, int)[marked], "masks")
        return out

    def label_ids(self) -> NDArray[np.int64]:
        """Class id of every row."""
        ids = {name: number for number, name in enumerate(self.classes.names)}
        return np.asarray(self.manifest["label"].map(ids), np.int64)

    def verify(self) -> None:
        """Compare digest and every pixel hash with what is stored; DataError names a difference."""
        check_manifest(self.manifest, self.classes.names)
        found = manifest_digest(self.manifest, _essence(self.about, self.generator_training))
        if found != self.digest:
            raise DataError(f"{self.folder}: digest is {found}, dataset.json says {self.digest}")
        hashes = self.manifest[["image_id", "sha256", "mask_sha256"]]
        for row, (image_id, image, mask) in enumerate(hashes.itertuples(index=False)):
            if sha256_of(self.raw([row])[0]) != image:
                raise DataError(f"{self.folder}: pixels of image {image_id} have changed")
            if mask and sha256_of(self.masks([row])[0]) != mask:
                raise DataError(f"{self.folder}: mask of image {image_id} has changed")

    def _gather(self, rows: Sequence[int] | NDArray[Any], kind: str) -> NDArray[Any]:
        rows = np.asarray(rows, int)
        shards = self._shard_codes[0][rows]
        indices = self._indices[rows]
        names = self._shard_codes[1]
        kinds = np.unique(shards)
        if len(kinds) == 1:
            return np.asarray(self._map(names[kinds[0]], kind)[indices])
        parts = {code: self._map(names[code], kind) for code in kinds}
        depth = max((part.dtype for part in parts.values()), key=lambda dtype: dtype.itemsize)
        channels = parts[kinds[0]].shape[1]
        out = np.empty((len(rows), channels, *self.shape[1:]), depth)
        for code, part in parts.items():
            mine = shards == code
            pixels = part[indices[mine]]
            # an 8-bit image among 16-bit ones keeps its range: 255 becomes 65535
            scale = np.iinfo(depth).max // np.iinfo(part.dtype).max
            out[mine] = pixels.astype(depth) * depth.type(scale)
        return out

    @cached_property
    def _shard_codes(self) -> tuple[NDArray[np.int64], list[str]]:
        codes, names = pd.factorize(self.manifest["shard"])
        return codes, [str(name) for name in names]

    @cached_property
    def _indices(self) -> NDArray[np.int64]:
        indices: NDArray[np.int64] = self.manifest["index"].to_numpy(np.int64)
        return indices

    def _map(self, shard: str, kind: str) -> NDArray[Any]:
        key = shard if kind == "images" else shard.replace("images-", "masks-")
        if key not in self._maps:
            owner, _, name = key.rpartition("/")
            path = self._owner(owner) / name
            try:
                self._maps[key] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise DataError(
                    f"pixels {path} of dataset {self.name} cannot be read: {error}"
                ) from None
        return self._maps[key]

    def _owner(self, digest: str) -> Path:
        """Folder of the dataset that owns a shard; "" is this one."""
        if not digest:
            return self.folder
        if self._find:
            return self._find(digest)
        beside = self.folder.parent / digest
        local = [each["uri"] for each in self.about.get("parents", []) if each["digest"] == digest]
        if not beside.exists() and local and Path(local[0]).is_dir():
            return Path(local[0])
        return beside

    def __getstate__(self) -> dict[str, Any]:
        """State for a loader's worker process, which opens the memory maps itself."""
        return {**self.__dict__, "_maps": {}}


GENERATOR_TRAINING_COLUMNS = ("run_id", "salt", "group_id", "sha256")


class DatasetWriter:
    """Writes a dataset beside its final place; `finish` renames it there when it is whole.

    `dtype` is uint8 or uint16; images are given as stored, (C, H, W).
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
        self.about = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "classes": classes.to_json(),
            "shape": list(shape),
            "dtype": dtype,
            **(about or {}),
        }
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

    def discard(self) -> None:
        """Remove what was written: the dataset will not be finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


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
    digest = manifest_digest(frame, _essence(about, generator_training))
    counts = Counter(zip(frame["split"], frame["label"], strict=True))
    described = {
        **about,
        "digest": digest,
        "images": len(frame),
        "patients": int(frame.loc[~frame["is_synthetic"], "group_id"].nunique()),
        "counts": {f"{split}/{label}": counts[split, label] for split, label in sorted(counts)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "manifest.parquet", index=False)
    if generator_training is not None and len(generator_training):
        generator_training.to_parquet(folder / "generator_training.parquet", index=False)
    (folder / "dataset.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
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
                file.write(_npy_header(0, self._shape, self._dtype))
            file.write(np.ascontiguousarray(image).tobytes())
        if mask is not None:
            self._masks[self.count] = mask
        self.count += 1

    def close(self) -> None:
        if not self.count:
            return
        with (self._folder / self.name).open("r+b") as file:
            file.write(_npy_header(self.count, self._shape, self._dtype))
            file.flush()
            os.fsync(file.fileno())
        if self._masks:
            shape = (self.count, 1, *self._shape[1:])
            path = self._folder / self.name.replace("images-", "masks-")
            masks = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
            for index, mask in self._masks.items():
                masks[index] = mask
            masks.flush()


def _npy_header(count: int, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> bytes:
    """Header of an .npy file of `count` images, always 128 bytes, so that it can be rewritten."""
    size = f"({count}, {shape[0]}, {shape[1]}, {shape[2]})"
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {size}, }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def sha256_of(pixels: NDArray[Any]) -> str:
    """Hash of type, shape and values of `pixels`."""
    head = f"{pixels.dtype.str}{pixels.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _essence(about: Mapping[str, Any], seen: pd.DataFrame | None) -> dict[str, Any]:
    """What the digest covers beside the rows: all that a later step's result depends on."""
    keys = ("schema_version", "name", "classes", "shape", "intensity", "salt", "split_seed")
    covered = {key: json.dumps(about.get(key), sort_keys=True) for key in keys}
    if seen is not None and len(seen):
        columns = list(GENERATOR_TRAINING_COLUMNS)
        text = seen[columns].sort_values(columns).to_csv(index=False, lineterminator="\n")
        covered["generator_training"] = hashlib.sha256(text.encode()).hexdigest()
    return covered
