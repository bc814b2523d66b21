"""Keeps what was drawn in a folder, chunk by chunk, so that a run can go on where it was."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import operator
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.errors import DataError

log = logging.getLogger("mammo")


@dataclass(frozen=True)
class Effort:
    """What it took to draw images; of several chunks, the sum."""

    draws: int = 0  # of images, the rejected ones included
    mask_draws: int = 0  # of masks for them, by a generator of masks
    mask_empty: int = 0  # rejected masks by the rule that they broke, theirs or as images
    mask_too_small: int = 0
    mask_too_large: int = 0
    seconds: float = 0.0

    def __add__(self, other: Effort) -> Effort:
        return Effort(*map(operator.add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Chunk:
    """A few images as they will be stored, with the masks that they were drawn around."""

    labels: list[str]
    seeds: list[int]  # that gave them
    images: NDArray[Any]  # (N, C, H, W) uint8 or uint16
    masks: NDArray[np.uint8] | None  # (N, 1, H, W); None where there are none
    effort: Effort


@dataclass(frozen=True)
class Shelf:
    """Keeps chunks in `folder`: each a file whose name holds the hash of what is in it."""

    folder: Path

    def put(self, number: int, chunk: Chunk) -> None:
        """Write a chunk beside its name, flush it to the disk and rename it."""
        told = {"labels": chunk.labels, "seeds": chunk.seeds, "effort": asdict(chunk.effort)}
        said = json.dumps(told).encode()
        arrays: dict[str, Any] = {"images": chunk.images, "said": np.frombuffer(said, np.uint8)}
        if chunk.masks is not None:
            arrays["masks"] = chunk.masks
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        content = buffer.getvalue()
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{number:06d}.{secrets.token_hex(4)}"  # two may draw the same
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / f"{number:06d}-{_hash(content)}.npz")
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def get(self, number: int) -> Chunk | None:
        """A chunk as it was put; None where there is none, or it has changed since."""
        for path in sorted(self.folder.glob(f"{number:06d}-*.npz")):
            content = path.read_bytes()
            if path.stem.partition("-")[2] == _hash(content):
                with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                    said = json.loads(arrays["said"].tobytes())
                    masks = arrays.get("masks")
                    effort = Effort(**said["effort"])
                    return Chunk(said["labels"], said["seeds"], arrays["images"], masks, effort)
            log.warning("%s has changed since it was written; its images are drawn again", path)
            path.unlink()
        return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


@dataclass(frozen=True)
class Drawn:
    """All chunks of a dataset, in their order, in the folder where they are kept."""

    shelf: Shelf
    count: int

    def __iter__(self) -> Iterator[Chunk]:
        for number in range(self.count):
            chunk = self.shelf.get(number)
            if chunk is None:
                raise DataError(
                    f"chunk {number} in {self.shelf.folder} has gone or changed while the dataset "
                    "was written; run the same command again"
                )
            yield chunk
