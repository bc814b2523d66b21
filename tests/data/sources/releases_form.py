"""What a builder of a fake release gives, and the pieces that several of them write."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Fake:
    """How the adapter reads the release that a builder wrote."""

    options: Mapping[str, str] = field(default_factory=dict)  # of the adapter
    task: str = ""  # of the golden manifest; "" takes the first the adapter offers
    tasks: Sequence[str] = ()  # tasks to read where the adapter has no OFFERS


Builder = Callable[[Path], Fake]  # writes into an empty folder


def picture(path: Path, *, shape: tuple[int, int] = (48, 32), level: int = 200) -> Path:
    """Write an 8-bit picture of `shape` (rows, columns) with a bright left half.

    Its last rows are darker the one way or the other by the file's name, as no two pictures of a
    release are equal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(shape, np.uint8)
    pixels[:, : shape[1] // 2] = level
    pixels[-(shape[0] // 4) :, : shape[1] // 2] -= np.uint8(zlib.crc32(path.name.encode()) % 100)
    Image.fromarray(pixels).save(path)
    return path


def text(path: Path, content: str, *, encoding: str = "utf-8") -> Path:
    """Write `content`, making the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding=encoding)
    return path
