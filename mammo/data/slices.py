"""NIfTI volumes of a patient that belong together, and which of their slices hold anything."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammo.data.volumes import read_volume, volume_shape
from mammo.errors import DataError


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
        shapes = sorted({volume_shape(path) for path in self.files})
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


def filled_slices(path: Path) -> NDArray[np.bool_]:
    """For each slice whether it holds anything above 0."""
    return np.asarray((read_volume(path) > 0).any(axis=(0, 1)))
