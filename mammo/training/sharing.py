"""The batches of one process: its share of each global batch, in parts where memory is short."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Sampler

from mammo.errors import ConfigError


def in_parts(loader: DataLoader[Any], rank: int, size: int, parts: int) -> DataLoader[Any]:
    """`loader` with process `rank`'s rows of each batch, one in `size`, in `parts` pieces.

    All pieces of a batch are equally large, so the mean of their gradients is that of the batch.
    """
    if size * parts == 1:
        return loader
    return DataLoader(
        loader.dataset,
        batch_sampler=Pieces(loader.batch_sampler, rank, size, parts),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        generator=loader.generator,
    )


def check_parts(batch: int, size: int, parts: int) -> None:
    """Refuse a batch of `batch` images that `size` processes with `parts` each cannot share."""
    if batch % (size * parts):
        raise ConfigError(
            f"a batch of {batch} images cannot be shared evenly by devices {size} times accumulate "
            f"{parts}; make batch_size (or the number of training images, where that is smaller) "
            f"a multiple of {size * parts}"
        )


class Pieces(Sampler[list[int]]):
    """Positions of every piece of `rank` of the batches of `batches`; `sampler` is theirs."""

    def __init__(self, batches: Any, rank: int, size: int, parts: int) -> None:
        self.sampler = batches.sampler  # the trainer tells it the epoch
        self._batches, self._rank, self._size, self._parts = batches, rank, size, parts

    def __len__(self) -> int:
        return len(self._batches) * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            check_parts(len(batch), self._size, self._parts)
            mine = batch[self._rank :: self._size]
            length = len(mine) // self._parts
            for start in range(0, len(mine), length):
                yield mine[start : start + length]
