"""NIfTI volumes of a patient that belong together, and which of their slices hold anything."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.errors import DataError

_MOST = 1 << 30  # voxels of a volume that is read as a whole


@dataclass(frozen=True)
class Volume:
    """Channels of (H, W, D) and their mask; or one file of (H, W, planes) that holds them all."""

    patient: str
    paths: tuple[Path, ...]  # of the channels
    mask: Path | None
    split: str = ""  # by the folder above the patient's
    planes: tuple[int, ...] = ()  # of each channel, then of the mask, where one file holds them

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.paths, self.mask) if self.mask else self.paths

    def depth(self) -> int:
        """Images that it holds; DataError where its files do not fit together."""
        if not all(path.is_file() for path in self.files):
            missing = sum(not path.is_file() for path in self.paths)
            raise DataError(f"{missing} of its {len(self.paths)} channels have no file")
        shapes = sorted({shape_of(path) for path in self.files})
        if len(shapes) > 1:
            raise DataError(f"its channels and mask differ in size: {shapes}")
        if not self.planes:
            return shapes[0][2]
        if max(self.planes) >= shapes[0][2]:
            raise DataError(f"it holds {shapes[0][2]} planes, the setting planes names more")
        return 1

    def marked(self) -> NDArray[np.bool_]:
        """For each image whether the mask marks anything; DataError without a mask."""
        if self.mask is None:
            raise DataError("it has no mask to tell its label; bring the mask, or a csv of labels")
        filled = filled_slices(self.mask)
        return filled[[self.planes[-1]]] if self.planes else filled


def shape_of(path: Path) -> tuple[int, int, int]:
    """Height, width and slices of a NIfTI file, from its header alone."""
    shape = tuple(int(side) for side in _load(path).shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"its shape {shape} is none of (H, W) and (H, W, D)")
    return shape[0], shape[1], shape[2]


def filled_slices(path: Path) -> NDArray[np.bool_]:
    """For each slice whether it holds anything above 0."""
    shape = shape_of(path)
    if int(np.prod(shape, dtype=object)) > _MOST:
        raise DataError(f"a volume of {shape} voxels is too big to be true")
    try:
        voxels = np.asanyarray(_load(path).dataobj).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"the NIfTI file is truncated or broken ({type(error).__name__})") from None
    filled: NDArray[np.bool_] = (voxels > 0).any(axis=(0, 1))
    return filled


def _load(path: Path) -> Any:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        return nibabel.load(path)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"it is no NIfTI file, or a broken one ({type(error).__name__})") from None
