"""Batches for training and scoring, read from the memory map a whole batch at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from mammo.data.dataset import Dataset
from mammo.data.sets import Sets

# image float32 (B, C, H, W) in [0, 1]; label int64 (B,); row int64 (B,), of the dataset.
# Of S sets, which come one after the other: label (S,), held bool (S, M), see `Sets.pick`
Batch: TypeAlias = dict[str, torch.Tensor]
# by name: from rows of the dataset to an array, a row each, that a batch carries too
Columns: TypeAlias = Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]]


def training_batches(
    data: Dataset,
    rows: NDArray[Any],
    *,
    batch_size: int,
    order: Callable[[int], NDArray[Any]],
    columns: Columns = MappingProxyType({}),
    sets: Sets | None = None,
    workers: int = 0,
    processes: int = 1,
) -> DataLoader[Batch]:
    """Batches of `rows` of `data`; `order(epoch)` gives an epoch's positions in `rows`.

    With `sets` of positions in `rows` a sample is a set: `order` gives their numbers, and
    `batch_size` counts them.
    The trainer tells the loader's sampler the epoch, so an epoch's batches depend on its number
    alone and not on how many came before. So many `processes` share a batch.
    """
    sampler = EpochOrder(order)
    return _loader(
        _Rows(data, rows, columns, sets),
        batch_size,
        sampler,
        drop_last=ends_in_one(len(sampler), batch_size, processes),
        workers=workers,
    )


def ordered_batches(
    data: Dataset,
    rows: NDArray[Any],
    *,
    batch_size: int,
    columns: Columns = MappingProxyType({}),
    sets: Sets | None = None,
    workers: int = 0,
) -> DataLoader[Batch]:
    """Batches of all `rows` of `data`, or of all `sets` of them, once, as they come."""
    samples = _Rows(data, rows, columns, sets)
    return _loader(samples, batch_size, range(len(samples)), drop_last=False, workers=workers)


def ends_in_one(rows: int, batch_size: int, processes: int = 1) -> bool:
    """Whether the last of several batches would be a single row, whose batch norm has no variance.

    Or one for one of the `processes` that share it. It is left out; the order of the next epoch
    is another.
    """
    return rows > batch_size and 0 < rows % batch_size < 2 * processes


class EpochOrder(Sampler[int]):
    """Positions of the current epoch; the trainer calls `set_epoch` before each."""

    def __init__(self, order: Callable[[int], NDArray[Any]]) -> None:
        self._order = order
        self._positions = order(0)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._positions = epoch, self._order(epoch)

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions.tolist())


class _Rows(TorchDataset[Batch]):
    def __init__(
        self, data: Dataset, rows: NDArray[Any], columns: Columns, sets: Sets | None
    ) -> None:
        self._data, self._columns, self._sets = data, columns, sets
        self._rows = np.asarray(rows, np.int64)
        labels = data.label_ids()[self._rows]
        self._labels = labels if sets is None else sets.labels(labels, data.classes)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """One batch; torch's loader calls this once instead of once an image."""
        chosen = np.asarray(positions, np.int64)
        images, more = in_sets(self._sets, chosen)
        picked = self._rows[images]
        return {
            "image": torch.from_numpy(self._data.images(picked)),
            "label": torch.from_numpy(self._labels[chosen]),
            "row": torch.from_numpy(picked),
            **more,
            **{name: torch.from_numpy(of(picked)) for name, of in self._columns.items()},
        }


def in_sets(
    sets: Sets | None, samples: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, torch.Tensor]]:
    """Positions of the images of `samples`, and what a batch says of their `sets`, if any."""
    if sets is None:
        return samples, {}
    images, held = sets.pick(samples)
    return images, {"held": torch.from_numpy(held)}


def _loader(
    rows: _Rows,
    batch_size: int,
    sampler: Any,
    *,
    drop_last: bool,
    workers: int,
) -> DataLoader[Batch]:
    return DataLoader(
        rows,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=workers,
        collate_fn=_as_is,
        # the loader draws a seed for its workers at every start; a generator of its own keeps it
        # from moving the global one
        generator=torch.Generator().manual_seed(0),
    )


def _as_is(batch: Any) -> Batch:
    made: Batch = batch
    return made
