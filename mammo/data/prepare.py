"""From a record to what is stored: decoded, cropped, turned, resized and quantised."""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.breast import CROPS, look_at
from mammo.data.geometry import Frame, breast_values, lay, lay_mask, stored_pixel_mm
from mammo.data.picture import Omitted, Values
from mammo.data.pixels import Header, Picture, bits_of, read_mask, read_pixels
from mammo.data.regions import draw_regions
from mammo.data.release import Record
from mammo.errors import DataError

LOOK = (256, 256)  # H, W of the picture by which scenes are told: no image_size has a say in it


@dataclass(frozen=True)
class Recipe:
    """What is done to every picture of a data set."""

    size: tuple[int, int]  # H, W
    crop: str = "breast"
    intensity: str = "header"
    dtype: str = "uint16"
    fixed_range: tuple[float, float] | None = None  # of intensity "fixed", in modality units
    frames: str = "refuse"  # of a multi-frame file: of FRAMES
    for_processing: str = "refuse"  # of raw detector values: of FOR_PROCESSING
    exclude: frozenset[str] = frozenset()  # flags of a file's header that leave it out
    generated: bool = False  # synthetic images are what is read
    look: bool = False  # a picture of size LOOK is made too, to tell scenes by

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "Recipe":
        """That of a dataset or of a model trained on it, by what its JSON file says.

        A KeyError names what is not said.
        """
        intensity = about["intensity"]
        ends = intensity.get("range")
        return cls(
            (int(about["shape"][1]), int(about["shape"][2])),
            str(about["crop"]),
            str(intensity["policy"]),
            str(about["dtype"]),
            fixed_range=(float(ends[0]), float(ends[1])) if ends else None,
            frames=str(about["frames"]),
            for_processing="log" if "raw" in intensity else "refuse",
            exclude=frozenset(about["exclude"]),
            generated="synthetic_origin" in about,
        )


@dataclass(frozen=True)
class Prepared:
    """One image as it is stored, and what its file told."""

    image: NDArray[Any]  # (C, H, W) of the recipe's dtype
    mask: NDArray[np.uint8] | None  # (1, H, W): 255 in lesions
    header: Header
    pixel_mm: float  # of the stored image
    wall: str  # side of the chest wall in the file, as the pixels show it
    expected_wall: str  # as header or laterality have it
    breast_share: float  # of the file's area
    peak: float  # brightest stored value, in [0, 1]
    file_shape: tuple[int, int]  # height and width of the file's picture
    file_bits: int  # stored bits of a pixel of the file
    grey_low: float = math.nan  # the file's value, after its modality transform, that 0 stands for
    grey_high: float = math.nan  # and 1; of the first channel
    background: float = math.nan  # median grey outside the breast, in [0, 1]
    marks: float = math.nan  # share of the file that shines outside the breast
    flags: tuple[str, ...] = ()  # of the release and of the header, and wall_differs
    look: NDArray[Any] | None = None  # (1, *LOOK) of the recipe's dtype: the first channel

    def file_columns(self) -> dict[str, Any]:
        """What the manifest keeps of the file, by the name of its column."""
        return {
            "flags": ";".join(self.flags),
            "file_height": self.file_shape[0],
            "file_width": self.file_shape[1],
            "file_bits": self.file_bits,
            "grey_low": self.grey_low,
            "grey_high": self.grey_high,
            "background": self.background,
            "marks": self.marks,
        }


@dataclass(frozen=True)
class LeftOut:
    """Why an image is no part of the task, though nothing is wrong with its file."""

    reason: str  # names no one; counted, never an error


@dataclass(frozen=True)
class Refused:
    """Why an image cannot be used; holds nothing that could identify anyone."""

    reason: str


def prepare(record: Record, recipe: Recipe) -> Prepared | LeftOut | Refused:
    """Prepare one record; the first channel decides where the breast is for all of them."""
    try:
        return _prepare(record, recipe)
    except Omitted as flag:
        return LeftOut(f"{flag} (exclude)")
    except DataError as error:
        return Refused(str(error))


def depth_of(records: Iterable[Record]) -> str:
    """uint8 when every file has 8 bits or fewer, else uint16; unreadable files have no say."""
    for record in records:
        for path in record.paths:
            with suppress(DataError):
                if bits_of(path) > 8:
                    return "uint16"
    return "uint8"


def _prepare(record: Record, recipe: Recipe) -> Prepared:
    pictures = [_read(path, record, recipe, number) for number, path in enumerate(record.paths)]
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise DataError(f"its channels differ in size: {sorted(shapes)}")
    first = pictures[0]
    expected = first.header.wall or _usual_wall(record.laterality or first.header.laterality)
    frame: Frame = CROPS[recipe.crop](look_at(first), expected)
    usual = _usual_wall(record.laterality)
    if record.may_be_turned and usual and _seen_wall(first, frame, expected) not in ("", usual):
        pictures = [picture.turned() for picture in pictures]  # ROIs are drawn on upright pictures
        first = pictures[0]
        frame = CROPS[recipe.crop](look_at(first), usual)
    if recipe.intensity == "percentile":
        pictures = [each.stretched(breast_values(each, frame)) for each in pictures]
    first = pictures[0]
    spacing = first.header.pixel_mm if math.isnan(record.pixel_mm) else record.pixel_mm
    flags = {*record.flags, *first.header.flags}
    if expected and frame.wall and expected != frame.wall:
        flags.add("wall_differs")
    laid = [lay(picture, frame, recipe.size) for picture in pictures]
    return Prepared(
        image=np.stack([_quantized(each, recipe) for each in laid]),
        mask=_mask(record, recipe, frame, first.shape),
        header=first.header,
        pixel_mm=stored_pixel_mm(spacing, frame, recipe.size),
        wall=frame.wall,
        expected_wall=expected,
        breast_share=frame.breast_share,
        peak=max(float(each.max()) for each in laid),
        file_shape=first.shape,
        file_bits=first.bits,
        grey_low=first.low,
        grey_high=first.high,
        background=frame.background,
        marks=frame.marks,
        flags=tuple(sorted(flags)),
        look=_quantized(lay(first, frame, LOOK), recipe)[None] if recipe.look else None,
    )


def _read(path: Path, record: Record, recipe: Recipe, number: int) -> Picture:
    """Channel `number` of the record."""
    picture = read_pixels(
        path,
        intensity=recipe.intensity,
        fixed_range=recipe.fixed_range,
        frames=recipe.frames,
        for_processing=recipe.for_processing,
        slice_index=record.planes[number] if record.planes else record.slice_index,
        exclude=recipe.exclude,
    )
    if picture.header.synthetic and not recipe.generated:  # it would pass for a patient
        raise DataError(
            "it says that it is a synthetic image; leave it out, or import it as one with "
            "synthetic_origin"
        )
    return picture


def _seen_wall(picture: Picture, frame: Frame, expected: str) -> str:
    """Side of the chest wall as the pixels show it, also where the whole picture is kept."""
    if frame.inside is not None:
        return frame.wall
    try:
        found: Frame = CROPS["breast"](look_at(picture), expected)
    except DataError:  # no breast is found, nor is one needed
        return frame.wall
    return found.wall


def _usual_wall(laterality: str) -> str:
    """Side of the chest wall in the usual hanging: at the left for a left breast."""
    return {"L": "left", "R": "right"}.get(laterality, "")


def _quantized(laid: Values, recipe: Recipe) -> NDArray[Any]:
    full = np.iinfo(recipe.dtype).max
    stored: NDArray[Any] = np.rint(laid * np.float32(full)).astype(recipe.dtype)
    return stored


def _mask(
    record: Record, recipe: Recipe, frame: Frame, shape: tuple[int, int]
) -> NDArray[np.uint8] | None:
    """The record's lesions laid as the picture; None where it has none."""

    def read(path: Path, number: int) -> NDArray[np.bool_]:
        planes = record.planes[len(record.paths) :]
        at = planes[number] if planes else record.slice_index
        return read_mask(path, slice_index=at, frames=recipe.frames)

    joined = draw_regions(record, shape, read)
    return None if joined is None else lay_mask(joined, frame, recipe.size)[None]
