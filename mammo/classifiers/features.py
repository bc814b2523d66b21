"""Features of a frozen backbone, computed once and served like batches of images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mammo.classifiers.backbone import Network
from mammo.data.loading import EpochOrder

Batches = DataLoader[Any]


@torch.no_grad()
def compute(network: Network, batches: Batches, device: torch.device) -> dict[str, Tensor]:
    """Columns features (N, F), label (N,) and row (N,) of all `batches`, on the CPU."""
    network.eval().to(device)
    parts: dict[str, list[Tensor]] = {"features": [], "label": [], "row": []}
    for batch in batches:
        parts["features"].append(network.features(batch["image"].to(device)).float().cpu())
        for name in ("label", "row"):
            parts[name].append(batch[name])
    return {name: torch.cat(each) for name, each in parts.items()}


def serve(
    columns: dict[str, Tensor], *, batch_size: int, order: Callable[[int], NDArray[np.int64]]
) -> Batches:
    """Batches of `columns` in the order that `order(epoch)` gives, as positions."""
    return DataLoader(
        _Columns(columns),
        batch_size=batch_size,
        sampler=EpochOrder(order),
        collate_fn=_as_it_is,
        generator=torch.Generator().manual_seed(0),  # else it moves the global one
    )


class _Columns(Dataset[Any]):
    def __init__(self, columns: dict[str, Tensor]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns["row"])

    def __getitems__(self, positions: list[int]) -> dict[str, Tensor]:
        return {name: each[positions] for name, each in self._columns.items()}


def _as_it_is(batch: Any) -> Any:
    return batch
