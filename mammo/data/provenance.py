"""Where a synthetic image comes from, written into its file and read from it again.

A record is a JSON object: what it is (`kind`, which says "synthetic image"), the runs of the
sampling and of the generator and the generator's digest, the dataset, its row and image id, class,
conditions and seed, how it was sampled, and the sha256 of the stored image and of this file's
`planes`. PNG keeps it in an iTXt chunk with the keyword `mammo`, NIfTI in a comment of its header,
DICOM in a private block (see mammo.data.synthetic_dicom), .npy in FILE.npy.json.

The hash tells pixels that were altered. Whoever writes both anew is found out by the dataset's
manifest alone. Real images get no record, and a record holds nothing of a real one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo import __version__
from mammo.data.dataset import Dataset, sha256_of
from mammo.errors import ConfigError, DataError

KEYWORD = "mammo"  # of the PNG chunk with the record
KIND = "synthetic image"
STATEMENT = "Synthetic image: drawn by a generator, of no patient. Not for diagnosis."
MASK_PLANE = "mask"  # the plane that is one
TOLD = ("view", "laterality", "density", "birads", "vendor", "subset")
_TEXTS = ("run_id", "dataset", "image_id", "label", "generator_run_id", "image_sha256",
          "mask_sha256", "sha256")  # fmt: skip
_LONGEST = 300  # of a text in a record
_DIGEST, _RUN_ID = re.compile("[0-9a-f]{32}"), re.compile("[0-9A-Za-z_-]{0,64}")
_PLANE = re.compile(r"image \d+|mask")
_FORMATS = "PNG, DICOM, NIfTI, or .npy with its .npy.json"
Pixels = NDArray[Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What a file holds: its pixels (P, H, W) and its record, None where there is none."""

    record: Record | None
    pixels: Pixels
    marked: bool = True  # a DICOM file also says by standard means that it is synthetic
    plain: bool = True  # a DICOM file has its pixels shown as they are


class Origins:
    """The records of the synthetic rows of a dataset, mixed ones included."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self._opened: dict[str, _Owner] = {}

    def record(self, row: Any) -> Record:
        """What is known of `row`, a named tuple of the manifest; AssertionError of a real one."""
        if not row.is_synthetic:
            raise AssertionError(f"image {row.image_id} is real and has no generator")
        owner = self._owner(row.shard)
        sampling = dict(owner.data.about.get("sampling", {}))
        return {
            "kind": KIND,
            "statement": STATEMENT,
            "software": f"mammo {__version__}",
            "run_id": str(sampling.pop("run_id", "")),
            "generator_run_id": str(row.generator_run_id),
            "generator_digest": generator_digest(owner.data.about, row.generator_run_id),
            "dataset": owner.data.digest,
            "channels": owner.data.shape[0],
            "index": owner.place(str(row.image_id)),
            "image_id": str(row.image_id),
            "label": str(row.label),
            "conditions": {name: getattr(row, name) for name in TOLD if getattr(row, name)},
            "seed": int(row.sample_seed),
            "sampling": sampling,
            "image_sha256": str(row.sha256),
            "mask_sha256": str(row.mask_sha256),
        }

    def place(self, row: Any) -> tuple[Dataset, int]:
        """The dataset that holds the pixels of `row`, and its row there; -1 where it is not."""
        owner = self._owner(row.shard)
        return owner.data, owner.place(str(row.image_id))

    def _owner(self, shard: str) -> "_Owner":
        digest = str(shard).rpartition("/")[0] or self.data.digest
        if digest not in self._opened:
            folder = self.data.owners()[digest]
            mine = digest == self.data.digest
            self._opened[digest] = _Owner(self.data if mine else Dataset(folder))
        return self._opened[digest]


class _Owner:
    """A dataset that holds pixels, and the row number of each of its images."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def place(self, image_id: str) -> int:
        """Row of the image; -1 where the mix has given it another id."""
        return self._places.get(image_id, -1)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {str(name): row for row, name in enumerate(self.data.manifest["image_id"])}


def generator_digest(about: Mapping[str, Any], run_id: str) -> str:
    """Digest of the generator of run `run_id`, as dataset.json says it; "" where it does not."""
    found = [
        str(each["digest"])
        for each in about.get("parents", [])
        if each.get("kind") == "generator" and each.get("run_id") == run_id
    ]
    return found[0] if found else ""


def of_planes(record: Mapping[str, Any], pixels: Pixels, planes: Sequence[str]) -> Record:
    """The record of a file with `pixels` (P, H, W), each plane named: `image 1`, ..., or `mask`."""
    if pixels.ndim != 3 or len(pixels) != len(planes):
        raise ValueError(f"pixels {pixels.shape} for the planes {', '.join(planes)}")
    return {**record, "planes": list(planes), "sha256": hash_of(pixels)}


def hash_of(pixels: Pixels) -> str:
    """The hash of `pixels` (P, H, W) as a manifest has it, whatever their order in memory."""
    return sha256_of(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")))


def agrees(record: Mapping[str, Any], pixels: Pixels) -> bool:
    """Whether `pixels` (P, H, W) are those of the record, and of the dataset as far as it tells.

    That is so of a whole image and of a mask; a channel among others has the file's own hash alone.
    """
    planes = list(record["planes"])
    if hash_of(pixels) != record["sha256"] or len(planes) != len(pixels):
        return False
    whole = pixels[[place for place, name in enumerate(planes) if name != MASK_PLANE]]
    if len(whole) == record["channels"] and record["image_sha256"] not in _hashes(whole):
        return False
    if MASK_PLANE in planes:
        inside = pixels[[planes.index(MASK_PLANE)]] > 0
        if not record["mask_sha256"]:
            return not inside.any()  # an image without a mask
        return bool(hash_of(np.where(inside, np.uint8(255), np.uint8(0))) == record["mask_sha256"])
    return True


def _hashes(pixels: Pixels) -> set[str]:
    """Of the pixels, and of 8-bit ones that a mix with 16-bit ones has widened."""
    found = {hash_of(pixels)}
    if pixels.dtype.itemsize == 2 and not (pixels % 257).any():
        found.add(hash_of((pixels // 257).astype(np.uint8)))
    return found


def as_text(record: Mapping[str, Any]) -> str:
    """The record as it stands in a file: one line of JSON in ASCII, keys in order."""
    return json.dumps(dict(record), sort_keys=True, ensure_ascii=True)


def png_texts(record: Mapping[str, Any]) -> Any:
    """Pillow's PngInfo with the record, and the statement where any viewer shows it."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Description", STATEMENT)
    info.add_text("Software", f"mammo {__version__}")
    info.add_itxt(KEYWORD, as_text(record))
    return info


def mark_nifti(image: Any, record: Mapping[str, Any]) -> None:
    """Put the record into the header of a nibabel image."""
    from nibabel.nifti1 import Nifti1Extension

    image.header["descrip"] = b"synthetic image of mammo, of no patient"  # 80 bytes at most
    image.header.extensions.append(Nifti1Extension("comment", as_text(record).encode()))


def save(path: Path, pixels: Pixels, record: Mapping[str, Any]) -> None:
    """Write `pixels` (P, H, W) and their record to a new .png, .dcm, .nii.gz or .npy."""
    if path.suffix in (".png", ".dcm") and len(pixels) != 1:
        raise ConfigError(
            f"output {path.name}: {path.suffix} holds 1 channel, the image has {len(pixels)}; "
            "use .nii.gz or .npy"
        )
    if path.suffix == ".png":
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(pixels[0])).save(path, pnginfo=png_texts(record))
    elif path.suffix == ".dcm":
        from mammo.data.synthetic_dicom import write_synthetic

        write_synthetic(path, pixels[0], record)
    elif path.suffix == ".npy":
        np.save(path, pixels)
        _beside(path).write_text(as_text(record) + "\n")
    else:
        import nibabel

        image = nibabel.Nifti1Image(np.moveaxis(pixels, 0, -1), np.eye(4), dtype=pixels.dtype)
        mark_nifti(image, record)
        nibabel.save(image, path)


def read(path: Path) -> Found:
    """The record and the pixels of a file.

    DataError when the file cannot be read, or what stands in the record's place is none.
    """
    from mammo.data.pixels import is_dicom, is_volume, read_pixels

    if not path.is_file():
        raise DataError(f"it is no file; give {_FORMATS}")
    if path.suffix == ".npy":
        return _read_npy(path)
    if is_volume(path):
        from mammo.data.volumes import comments_of, read_volume

        ours = [text for text in comments_of(path) if KIND in text]  # others may have theirs
        return Found(_parsed(*ours[:1]), np.moveaxis(read_volume(path), -1, 0))
    pixels = read_pixels(path, intensity="none").stored[None]
    if is_dicom(path):
        from mammo.data.synthetic_dicom import record_in

        text, marked, plain = record_in(path)
        return Found(_parsed(text), pixels, marked, plain)
    from mammo.data.rasters import texts_of

    return Found(_parsed(texts_of(path).get(KEYWORD, "")), pixels)


def _parsed(text: str = "") -> Record | None:
    """The record that `text` is, None of an empty one; DataError when it is none."""
    if not text:
        return None
    try:
        record = json.loads(text)
        known = isinstance(record, dict) and record["kind"] == KIND
        # a file may come from anybody: its digest becomes a path, its texts go to the terminal
        fits = known and all(record[name].isprintable() for name in _TEXTS)
        fits = fits and all(len(record[name]) <= _LONGEST for name in _TEXTS)
        fits = fits and bool(_DIGEST.fullmatch(record["dataset"]))
        fits = fits and bool(_RUN_ID.fullmatch(record["run_id"]))
        fits = fits and all(type(record[name]) is int for name in ("index", "seed", "channels"))
        fits = fits and all(_PLANE.fullmatch(each) for each in record["planes"])
        images = [each for each in record["planes"] if each != MASK_PLANE] if fits else []
        # a plane that the image has not would be compared with nothing
        fits = fits and all(int(each.split()[1]) <= record["channels"] for each in images)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise DataError("its provenance is damaged: it is no record of mammo")
    return dict(record)


def _read_npy(path: Path) -> Found:
    try:
        pixels = np.load(path, allow_pickle=False)
        text = _beside(path).read_text() if _beside(path).is_file() else ""
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the .npy file cannot be read ({type(error).__name__})") from None
    if pixels.ndim != 3:
        raise DataError(f"its array has the shape {pixels.shape}; (planes, H, W) is expected")
    return Found(_parsed(text), pixels)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
