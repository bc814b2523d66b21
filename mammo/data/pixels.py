"""Reads an image file of any kind into one scale: grey in [0, 1], bright tissue on dark air."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.picture import Header, Picture, Reading, to_units
from mammo.errors import DataError

__all__ = ["Header", "Picture", "bits_of", "is_dicom", "read_header", "read_mask", "read_pixels",
           "to_units"]  # fmt: skip

INTENSITIES = ("header", "percentile", "fixed", "none")
FRAMES = ("refuse", "central", "maximum")  # central slice, or the maximum over all slices
FOR_PROCESSING = ("refuse", "log")
_LABELS = 15  # a mask with no greater value numbers its lesions, others are black and white


def read_pixels(
    path: Path,
    *,
    intensity: str = "header",
    fixed_range: tuple[float, float] | None = None,
    frames: str = "refuse",
    for_processing: str = "refuse",
    slice_index: int = -1,
    exclude: frozenset[str] = frozenset(),
) -> Picture:
    """Decode `path`; DataError says why it cannot be used (without its name, which may identify).

    The scale is fixed by the file's depth, never by the picture's own minimum and maximum:

    - `header` applies modality and VOI transforms of a DICOM file and divides by their output
      range; without VOI, and in other files, it is the full range of the stored bits.
    - `none` is that range always. So it is with `percentile`, until the breast is known and
      `Picture.stretched` is called.
    - `fixed` maps `fixed_range`, in the file's values after its modality transform, to 0 and 1.

    MONOCHROME1 is inverted always. Of a file with several frames or slices `slice_index` is
    taken, or what `frames` says; `for_processing` log turns raw detector values into attenuation.
    """
    if intensity not in INTENSITIES:
        raise DataError(f"intensity {intensity!r} is not one of {', '.join(INTENSITIES)}")
    if (intensity == "fixed") != (fixed_range is not None):
        raise DataError(f"intensity {intensity} with fixed_range {fixed_range}; fixed needs one")
    reading = Reading(intensity, fixed_range, frames, for_processing, slice_index, exclude)
    if is_volume(path):
        from mammo.data.volumes import read_slice

        return read_slice(path, reading)
    if is_dicom(path):
        from mammo.data.dicom import read_dicom

        return read_dicom(path, reading)
    from mammo.data.rasters import read_raster

    return read_raster(path, reading)


def read_mask(path: Path, *, slice_index: int = -1, frames: str = "refuse") -> NDArray[np.bool_]:
    """Lesions in the mask `path` (H, W): brighter than half, or any number but 0 of a label map."""
    reading = Reading("none", frames=frames, slice_index=slice_index)
    if is_volume(path):  # by its numbers: what grey they would be depends on their type
        from mammo.data.volumes import read_numbers

        stored = read_numbers(path, reading)
    else:
        stored = read_pixels(path, intensity="none", slice_index=slice_index, frames=frames).stored
    top = float(stored.max(initial=0))
    return np.asarray(stored > (0.5 if top <= _LABELS else top / 2))


def bits_of(path: Path) -> int:
    """Bits that a pixel of `path` is stored with, from its header alone; 8 for colour."""
    if is_volume(path):
        from mammo.data.volumes import bits_of_volume

        return bits_of_volume(path)
    if is_dicom(path):
        from mammo.data.dicom import bits_of_dicom

        return bits_of_dicom(path)
    from mammo.data.rasters import bits_of_raster

    return bits_of_raster(path)


def is_volume(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's magic or, lacking it, DICOM's suffix."""
    try:
        with path.open("rb") as file:
            magic = file.read(132)[128:]
    except OSError as error:
        raise DataError(f"the file cannot be opened ({error.strerror})") from None
    return magic == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def read_header(path: Path, tags: list[str] | None = None) -> Any:
    """The pydicom data set of a DICOM file without its pixels; DataError when it has none."""
    from mammo.data.dicom import parse

    return parse(path, stop_before_pixels=True, specific_tags=tags)
