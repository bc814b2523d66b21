"""Writes a dataset as the files that another system reads, pixel for pixel.

A layout is a module with `SYSTEM`, the public system whose files these are (or its own name);
`HOLDS`, what it can hold beside labels, of `real` images, `channels`, `masks`, `patients` and
`splits`; `write(export)`; and, where it holds real images, `reading(export)`, the settings with
which `preprocess` finds those again. Files of synthetic images carry their provenance.
"""

import importlib
import os
import pkgutil
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.dataset import Dataset
from mammo.data.provenance import MASK_PLANE, Origins, Record, mark_nifti, of_planes, png_texts
from mammo.errors import ConfigError, DataError

LAYOUTS = tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))
_AT_ONCE = 64  # images in memory
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]*")  # of names of files, on any system


@dataclass(frozen=True)
class Image:
    """One row of a dataset with its pixels."""

    row: Any  # of the manifest, a named tuple
    pixels: NDArray[Any]  # (C, H, W), uint8 or uint16
    mask: NDArray[np.uint8] | None  # (H, W): 255 in lesions; None where the row has no mask

    @property
    def planes(self) -> list[str]:
        """Names of the channels."""
        return [f"image {number}" for number in range(1, len(self.pixels) + 1)]

    def plane(self, name: str) -> NDArray[Any]:
        """The channel, or the mask, of that name (H, W)."""
        if name == MASK_PLANE and self.mask is not None:
            return self.mask
        channel: NDArray[Any] = self.pixels[self.planes.index(name)]
        return channel


@dataclass
class Export:
    """A dataset on its way into `folder`; counts what was written and what the layout cannot hold.

    Real and generated images never share a folder or a table, so that nobody takes one for the
    other.
    """

    data: Dataset
    frame: pd.DataFrame  # rows of the manifest to write, with a column `number`: its row
    folder: Path
    written: Counter[str] = field(default_factory=Counter)  # file kind -> files

    def rows(self, *, synthetic: bool) -> pd.DataFrame:
        """The real or the generated rows, by image id."""
        mine = self.frame[self.frame["is_synthetic"] == synthetic]
        return mine.sort_values("image_id", kind="stable").reset_index(drop=True)

    def images(self, rows: pd.DataFrame) -> Iterator[Image]:
        """`rows` with their pixels, a few in memory at a time."""
        for start in range(0, len(rows), _AT_ONCE):
            some = rows.iloc[start : start + _AT_ONCE]
            numbers = some["number"].to_numpy(int)
            pixels, masks = self.data.raw(numbers), self.data.masks(numbers)
            for place, row in enumerate(some.itertuples(index=False)):
                yield Image(row, pixels[place], masks[place, 0] if row.mask_sha256 else None)

    def path(self, *parts: str) -> Path:
        """A new file below the folder; its name must do on any system."""
        for part in parts:
            if not _SAFE.fullmatch(part) or part.endswith((".", " ")) or len(part) > 200:
                raise DataError(
                    f"{part!r} cannot be the name of a file or folder; rename that class or id"
                )
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise DataError(f"two images would be written to {'/'.join(parts)}; ids must be unique")
        return path

    def png(self, image: Image, plane: str, *parts: str) -> str:
        """Write a plane of `image` (`image 1`, ..., or `mask`) in its depth; returns its path.

        A real image's file holds no text, a synthetic one's its provenance.
        """
        from PIL import Image as Pillow

        path, pixels = self.path(*parts), image.plane(plane)
        record = self.record(image, pixels[None], [plane])
        texts = {"pnginfo": png_texts(record)} if record else {}
        Pillow.fromarray(np.ascontiguousarray(pixels)).save(path, "PNG", **texts)
        self.written["PNG"] += 1
        return "/".join(parts)

    def nifti(
        self, array: NDArray[Any], *parts: str, pixel_mm: float, record: Record | None = None
    ) -> str:
        """Write `array` (H, W[, D]) as NIfTI of the same depth, with unit spacing if unknown."""
        import nibabel

        scale = pixel_mm if np.isfinite(pixel_mm) else 1.0
        image = nibabel.Nifti1Image(array, np.diag([scale, scale, 1.0, 1.0]), dtype=array.dtype)
        if record:
            mark_nifti(image, record)
        nibabel.save(image, self.path(*parts))
        self.written["NIfTI"] += 1
        return "/".join(parts)

    def record(self, image: Image, pixels: NDArray[Any], planes: Sequence[str]) -> Record | None:
        """Provenance of a file with `pixels` (P, H, W) of a synthetic image; None of a real one."""
        if not image.row.is_synthetic:
            return None
        return of_planes(self._origins.record(image.row), pixels, planes)

    @cached_property
    def _origins(self) -> Origins:
        return Origins(self.data)

    def table(self, frame: pd.DataFrame, *parts: str) -> None:
        """Write `frame` as CSV."""
        frame.to_csv(self.path(*parts), index=False, lineterminator="\n")
        self.written["CSV"] += 1


def open_layout(name: str) -> ModuleType:
    """The module of layout `name`, or of `system0` to `system4`; ConfigError lists them."""
    modules = {each: importlib.import_module(f"{__name__}.{each}") for each in LAYOUTS}
    for each, module in modules.items():
        if name in (each, module.SYSTEM):
            return module
    known = sorted((module.SYSTEM, each) for each, module in modules.items())
    names = [f"{system} ({each})" if system != each else each for system, each in known]
    listed = ", ".join(names)
    raise ConfigError(f"unknown layout {name!r}; choose one of {listed}")


def export(data: Dataset, layout: ModuleType, output: Path, *, split: str = "all") -> Export:
    """Write the rows of `split` of `data` to the new folder `output`, whole or not at all."""
    if output.exists():
        raise ConfigError(f"output {output} exists already; name a new folder")
    channels = data.shape[0]
    if channels > 1 and "channels" not in layout.HOLDS:
        raise ConfigError(
            f"layout {layout.SYSTEM} holds 1 channel, dataset {data.name} has {channels}; "
            "choose system1 or system4"
        )
    frame = data.manifest.assign(number=np.arange(len(data)))
    frame = frame if split == "all" else frame[frame["split"] == split]
    if not len(frame):
        raise DataError(f"dataset {data.name} has no image in split {split}")
    if "real" not in layout.HOLDS and not frame["is_synthetic"].any():
        raise DataError(
            f"dataset {data.name} has no synthetic image, and layout {layout.SYSTEM} holds no "
            "others; export what sample or mix made"
        )
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    made = Export(data, frame, partial)
    try:
        partial.mkdir(parents=True)
        layout.write(made)
        partial.rename(output)
    except OSError as error:
        raise DataError(f"{output} cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def lost(made: Export, layout: ModuleType) -> list[str]:
    """What of the dataset the layout cannot hold, in words."""
    real = made.rows(synthetic=False)
    said = []
    if len(real) and "real" not in layout.HOLDS:
        said.append(f"{len(real)} real images are left out: the layout is of synthetic ones alone")
    masks = int((made.frame["mask_sha256"] != "").sum())
    if masks and "masks" not in layout.HOLDS:
        said.append(f"{masks} masks are left out: the layout has none")
    splits = sorted(set(real["split"]))
    if len(splits) > 1 and "real" in layout.HOLDS and "splits" not in layout.HOLDS:
        said.append(
            f"the layout has no splits: {', '.join(splits)} are in one folder; who trains on it "
            "sees them all (--split train and --split test write one alone)"
        )
    return said


def read_again(made: Export, layout: ModuleType) -> dict[str, str]:
    """Settings with which `preprocess` makes the same real images again, pixel for pixel."""
    classes = made.data.classes
    _, height, width = made.data.shape
    named = {"positive": classes.positive} if classes.task == "label" else {}
    return {
        "task": classes.task,
        "label_kind": classes.label_kind,
        **named,
        "image_size": f"{height}x{width}",
        "crop": "none",
        "intensity": "none",
        **layout.reading(made),
    }


def guidance_of(made: Export) -> dict[str, str]:
    """Guidance of each generated image by image id, as text; `unknown` where it is not recorded."""
    found: dict[str, str] = {}
    for digest, folder in made.data.owners().items():
        about = Dataset(folder).about
        value = about.get("sampling", {}).get("guidance")
        found[digest] = "unknown" if value is None else str(float(value))  # 8.0, as theirs
    rows = made.rows(synthetic=True)
    owners = [str(shard).rpartition("/")[0] or made.data.digest for shard in rows["shard"]]
    return {image: found[owner] for image, owner in zip(rows["image_id"], owners, strict=True)}
