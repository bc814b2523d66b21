"""A contact sheet: pictures of a dataset side by side, a row of them for each class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.dataset import Dataset

_GAP = 4  # pixels between pictures


def contact_sheet(data: Dataset, *, columns: int = 8, side: int = 160) -> NDArray[np.uint8]:
    """The first `columns` patients' pictures of each class, one row a class: (H, W, 3) uint8.

    A picture's first channel is shown, its longer side enlarged or reduced to `side`; the class
    name stands to the left, so nothing but the class is written on the sheet.
    """
    manifest = data.manifest
    shown = {}
    for name in data.classes.names:
        mine = manifest.index[manifest["label"] == name]
        firsts = list(manifest.loc[mine].drop_duplicates("group_id").index)
        known = set(firsts)
        shown[name] = [*firsts, *(row for row in mine if row not in known)]
    return captioned(data, shown, columns=columns, side=side)


def captioned(
    data: Dataset, shown: Mapping[str, Sequence[int]], *, columns: int = 8, side: int = 160
) -> NDArray[np.uint8]:
    """The first `columns` of each list of rows of `data`, with its name to the left.

    A list without rows has no line: (H, W, 3) uint8.
    """
    height, width = data.shape[1:]
    scale = side / max(height, width)
    cell = (round(height * scale), round(width * scale))
    band = 90
    rows = []
    for name, every in shown.items():
        chosen = list(every[:columns])
        if not chosen:
            continue
        strip = np.zeros((cell[0] + _GAP, band + columns * (cell[1] + _GAP)), np.uint8)
        strip[: cell[0], :band] = _caption(name, (cell[0], band))
        for place, image in enumerate(data.images(chosen)):
            left = band + place * (cell[1] + _GAP)
            strip[: cell[0], left : left + cell[1]] = _resized(image[0], cell)
        rows.append(strip)
    return np.repeat(np.concatenate(rows)[:, :, None], 3, axis=2)


def _resized(image: NDArray[Any], cell: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    grey = Image.fromarray(np.rint(image * 255).astype(np.uint8))
    return np.asarray(grey.resize((cell[1], cell[0]), Image.Resampling.LANCZOS))


def _caption(text: str, cell: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (cell[1], cell[0]))
    drawer = ImageDraw.Draw(canvas)
    drawer.text((6, cell[0] / 2), text.replace("_", "\n"), fill=255, anchor="lm")
    return np.asarray(canvas)
