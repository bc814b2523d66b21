"""Modes: what a generator makes, and of what; a new one is one class here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mammo.errors import DataError
from mammo.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from mammo.data.dataset import Dataset

MODES = Registry("mode")


def drawn() -> tuple[str, ...]:
    """Names of the modes that draw, the default first."""
    return tuple(name for name, mode in MODES.items() if mode.drawn)


def mode_of(name: str) -> Mode:
    """The mode called `name`."""
    found: Mode = MODES[name]()
    return found


class Mode(Protocol):
    """What is made of a batch: `image` (B, C, H, W) in [0, 1] and `mask` (B, 1, H, W), 0 or 1.

    A mode has no state. What it makes and what controls it are in [-1, 1]. `mask` is there where
    the mode is masked.
    """

    labelled: bool  # is told class and conditions
    masked: bool  # needs the masks of the dataset
    drawn: bool  # makes something new; an autoencoder's does not

    def channels(self, image_channels: int) -> tuple[int, int]:
        """Channels of what is made and of what controls it (0: nothing does)."""

    def target(self, batch: dict[str, Tensor]) -> Tensor:
        """What is to be made, (B, made, H, W) in [-1, 1]."""

    def control(self, batch: dict[str, Tensor]) -> Tensor | None:
        """What it is made from, (B, control, H, W) in [-1, 1]; None for nothing."""

    def rows(self, data: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `rows` to learn from; DataError when the dataset cannot serve."""


@MODES.register("class")
class OfClass:
    """Images of a class that is asked for, with whatever else is told."""

    labelled, masked, drawn = True, False, True

    def channels(self, image_channels: int) -> tuple[int, int]:
        return image_channels, 0

    def target(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["image"] * 2 - 1

    def control(self, batch: dict[str, Tensor]) -> Tensor | None:
        return None

    def rows(self, data: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows


@MODES.register("unconditional")
class Unconditional(OfClass):
    """Images like those of the training set, of whatever class."""

    labelled = False


@MODES.register("mask")
class Mask(OfClass):
    """Masks of lesions or tissue, of a class that is asked for; rows without one are left out."""

    masked = True

    def channels(self, image_channels: int) -> tuple[int, int]:
        return 1, 0

    def target(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["mask"] * 2 - 1

    def rows(self, data: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        kept: NDArray[np.int64] = rows[_has_mask(data, rows)]
        return kept


@MODES.register("mask_to_image")
class MaskToImage(OfClass):
    """Images around a mask that is given; an empty mask is an image without a lesion."""

    masked = True

    def channels(self, image_channels: int) -> tuple[int, int]:
        return image_channels, 1

    def control(self, batch: dict[str, Tensor]) -> Tensor | None:
        return batch["mask"] * 2 - 1

    def rows(self, data: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        _has_mask(data, rows)
        return rows


@MODES.register("dual")
class Dual(MaskToImage):
    """Two paired images at once around a mask: low-energy and subtracted, before and after."""

    def rows(self, data: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if data.shape[0] != 2:
            raise DataError(
                f"mode dual makes two paired images, dataset {data.name} has {data.shape[0]} "
                "channels; preprocess with channels=<first>,<second>, or use mode=mask_to_image"
            )
        return super().rows(data, rows)


@MODES.register("reconstruct")
class Reconstruct(OfClass):
    """The images themselves again: what autoencoders make."""

    labelled, drawn = False, False

    def channels(self, image_channels: int) -> tuple[int, int]:
        return image_channels, image_channels

    def control(self, batch: dict[str, Tensor]) -> Tensor | None:
        return batch["image"] * 2 - 1


def _has_mask(data: Dataset, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Which of `rows` have a mask; DataError when none has."""
    marked: NDArray[Any] = data.manifest["mask_sha256"].to_numpy()[rows] != ""
    if len(rows) and not marked.any():
        raise DataError(
            f"dataset {data.name}: none of the {len(rows)} images that would train, or that would "
            "validate, has a mask; preprocess a release with masks, or use mode=class"
        )
    return marked
