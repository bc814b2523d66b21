"""Features of a frozen backbone: each image's computed once, whatever the fold, and served."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mammo.classifiers.backbone import Network
from mammo.classifiers.feature_store import FeatureStore
from mammo.data.dataset import Dataset
from mammo.data.loading import EpochOrder, in_sets, ordered_batches
from mammo.data.sets import Sets

Rows = NDArray[np.int64]
Batches = DataLoader[Any]
_BATCH = 32  # fixed: the last bits of a feature may depend on the size of its batch


class Features:
    """Features of the rows of `data`, and of rows that a mix has put behind them.

    A row's features are the same bits whether a fold runs alone, with others, or again: each batch
    is filled up to one size, and with a `store` they are those that the first run has computed.
    """

    def __init__(self, data: Dataset, store: FeatureStore | None = None) -> None:
        self._data, self._store = data, store
        self._known: Tensor | None = None  # (len(data), F); zeros in the test split

    def of(
        self, network: Network, data: Dataset, rows: Rows, device: torch.device
    ) -> dict[str, Tensor]:
        """Columns features (N, F) and row (N,) of `rows` of `data`, on the CPU."""
        if self._known is None:
            open_rows = np.flatnonzero((self._data.manifest["split"] != "test").to_numpy())
            found = self._found(network, self._data, open_rows, device)
            self._known = torch.zeros(len(self._data), found.shape[1])
            self._known[open_rows] = found
        own = rows < len(self._data)
        features = torch.empty(len(rows), self._known.shape[1])
        features[own] = self._known[rows[own]]
        if not own.all():
            features[~own] = self._found(network, data, rows[~own], device)
        return {"features": features, "row": torch.from_numpy(rows)}

    def _found(self, network: Network, data: Dataset, rows: Rows, device: torch.device) -> Tensor:
        if self._store is None:
            return compute(network, data, rows, device)
        made = partial(compute, network, data, device=device)
        found = self._store.of(network, data, rows, device, lambda new: made(new).numpy())
        return torch.from_numpy(found)


@torch.no_grad()
def compute(network: Network, data: Dataset, rows: Rows, device: torch.device) -> Tensor:
    """Features (len(rows), F) of `rows`, on the CPU; a row's do not depend on the others."""
    network.eval().to(device)
    filled = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % _BATCH)])
    batches = ordered_batches(data, filled, batch_size=_BATCH)
    parts = [network.features(batch["image"].to(device)).float().cpu() for batch in batches]
    return torch.cat(parts)[: len(rows)]


def serve(
    columns: dict[str, Tensor],
    *,
    batch_size: int,
    order: Callable[[int], Rows],
    sets: Sets | None,
    labels: Rows,
    drop_last: bool = False,
) -> Batches:
    """Batches in the order that `order(epoch)` gives, as positions of samples with `labels`.

    A sample is a row of `columns`, or one of the `sets` of rows.
    """
    return DataLoader(
        _Columns(columns, sets, labels),
        batch_size=batch_size,
        sampler=EpochOrder(order),
        drop_last=drop_last,
        collate_fn=_as_it_is,
        generator=torch.Generator().manual_seed(0),  # else it moves the global one
    )


class _Columns(TorchDataset[Any]):
    def __init__(self, columns: dict[str, Tensor], sets: Sets | None, labels: Rows) -> None:
        self._columns, self._sets, self._labels = columns, sets, torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitems__(self, positions: list[int]) -> dict[str, Tensor]:
        images, more = in_sets(self._sets, np.asarray(positions, np.int64))
        picked = {name: each[images] for name, each in self._columns.items()}
        return {**picked, "label": self._labels[positions], **more}


def _as_it_is(batch: Any) -> Any:
    return batch
