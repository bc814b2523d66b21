"""A dataset on disk, opened: manifest, class map and memory-mapped pixels by row number."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.manifest import check_manifest, manifest_digest, rows_digest
from mammo.data.stored import map_pixels, read_about, read_manifest, read_training
from mammo.errors import DataError

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
        self.about, self.classes = read_about(folder)

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
        return read_manifest(self.folder, self.classes)

    @cached_property
    def generator_training(self) -> pd.DataFrame:
        """What the generators of the synthetic rows were trained on.

        Columns run_id, salt, group_id, sha256; empty for a dataset of real images.
        """
        return read_training(self.folder, GENERATOR_TRAINING_COLUMNS)

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
        codes, names = pd.factorize(self.manifest["label"])
        ids = np.array([self.classes.names.index(name) for name in names], np.int64)
        return np.asarray(ids[codes])

    def verify(self) -> None:
        """Compare digest and every pixel hash with what is stored; DataError names a difference."""
        check_manifest(self.manifest, self.classes.names)
        found = manifest_digest(self.manifest, essence(self.about, self.generator_training))
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
        first = shards[0] if len(rows) else 0
        if (shards == first).all():
            pixels: NDArray[Any] = self._map(names[first], kind)[indices]
            return pixels
        parts = {code: self._map(names[code], kind) for code in np.unique(shards)}
        depth = max((part.dtype for part in parts.values()), key=lambda dtype: dtype.itemsize)
        channels = next(iter(parts.values())).shape[1]
        out = np.empty((len(rows), channels, *self.shape[1:]), depth)
        for place, (code, index) in enumerate(zip(shards, indices, strict=True)):
            part = parts[code]
            out[place] = part[index]
            if part.dtype != depth:
                # an 8-bit image among 16-bit ones keeps its range: 255 becomes 65535
                out[place] *= depth.type(np.iinfo(depth).max // np.iinfo(part.dtype).max)
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
            channels, *shape = self.shape if kind == "images" else (1, *self.shape[1:])
            pixels = map_pixels(path, channels=channels, shape=(shape[0], shape[1]))
            mine = (self._shard_codes[0] == self._shard_codes[1].index(shard)) & self._held(kind)
            needed = int(self._indices[mine].max(initial=-1)) + 1
            if needed > len(pixels):
                raise DataError(
                    f"{path} holds {len(pixels)} images, the manifest of {self.folder} needs "
                    f"{needed}; fetch or make the dataset again"
                )
            self._maps[key] = np.asarray(pixels)  # still mapped; quicker to index than memmap
        return self._maps[key]

    def _held(self, kind: str) -> NDArray[np.bool_]:
        """Which rows have an image, or a mask."""
        if kind == "images":
            return np.ones(len(self), bool)
        return np.asarray(self.manifest["mask_sha256"] != "")

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


# sha256 is that of an image, or of a mask that was drawn around; "" stands for all that is behind
# the run and was not recorded
GENERATOR_TRAINING_COLUMNS = ("run_id", "salt", "group_id", "sha256")


def sha256_of(pixels: NDArray[Any]) -> str:
    """Hash of type, shape and values of `pixels`."""
    head = f"{pixels.dtype.str}{pixels.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def essence(about: Mapping[str, Any], seen: pd.DataFrame | None) -> dict[str, Any]:
    """What the digest covers beside the rows: all that a later step's result depends on."""
    keys = ("schema_version", "name", "classes", "shape", "intensity", "salt", "split_seed")
    covered = {key: json.dumps(about.get(key), sort_keys=True) for key in keys}
    if seen is not None and len(seen):
        covered["generator_training"] = rows_digest(seen[list(GENERATOR_TRAINING_COLUMNS)])
    return covered
