"""The batches of one process: its share of each global batch, in parts where memory is short."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

from mammo.errors import ConfigError


def in_parts(
    loader: DataLoader[Any], rank: int, size: int, parts: int, *, even: bool = True
) -> DataLoader[Any]:
    """`loader` with process `rank`'s rows of each batch, one in `size`, in `parts` pieces.

    All pieces of a batch are equally large, so the mean of their gradients is that of the batch.
    Where that cannot be, it is a mistake, or with `even` false the last rows are left out.
    """
    if size * parts == 1:
        return loader
    return DataLoader(
        loader.dataset,
        batch_sampler=Pieces(loader.batch_sampler, rank, size, parts, even),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        generator=loader.generator,
    )


def its_share(loader: DataLoader[Any], rank: int, size: int) -> DataLoader[Any]:
    """`loader`, which validates, with process `rank`'s rows: one in `size` of all."""
    if size == 1:
        return loader
    positions = [place for batch in loader.batch_sampler or () for place in batch]
    return DataLoader(
        loader.dataset,
        batch_sampler=shares(positions, rank, size, loader.batch_size or 1),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        generator=loader.generator,
    )


def shares(positions: Sequence[int], rank: int, size: int, batch: int) -> list[list[int]]:
    """Batches of about `batch` at most of process `rank`'s `positions`, one in `size`.

    All processes have as many batches, none of them empty: the buffers of a network are sent
    around before each. Where there are fewer positions than processes, each has them all, and the
    mean over processes is the same.
    """
    least, most = len(positions) // size, math.ceil(len(positions) / size)
    if not least:
        return [list(positions)] if positions else []
    mine = np.array(positions[rank::size])
    return [each.tolist() for each in np.array_split(mine, min(least, math.ceil(most / batch)))]


def check_parts(batch: int, size: int, parts: int) -> None:
    """Refuse a batch of `batch` images that `size` processes with `parts` each cannot share."""
    if batch % (size * parts):
        raise ConfigError(
            f"a batch of {batch} images cannot be shared evenly by {size} devices times accumulate "
            f"{parts}; make batch_size (or the number of training images, where that is smaller) "
            f"a multiple of {size * parts}"
        )


class Pieces(Sampler[list[int]]):
    """Positions of every piece of `rank` of the batches of `batches`; `sampler` is theirs."""

    def __init__(self, batches: Any, rank: int, size: int, parts: int, even: bool) -> None:
        self.sampler = batches.sampler  # the trainer tells it the epoch
        self._batches, self._rank, self._size, self._parts = batches, rank, size, parts
        self._even = even

    def __len__(self) -> int:
        return len(self._batches) * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            if self._even:
                check_parts(len(batch), self._size, self._parts)
            batch = batch[: len(batch) - len(batch) % (self._size * self._parts)]
            mine = batch[self._rank :: self._size]
            length = len(mine) // self._parts
            for start in range(0, len(mine), length):
                yield mine[start : start + length]
