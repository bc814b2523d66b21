"""Random numbers of a row: a function of seed, step and row, whatever process or batch it is in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from mammo.seeds import derive


def generators(seed: int, *place: object, rows: Tensor) -> list[torch.Generator]:
    """A generator on the CPU for each of `rows` (N,), from `seed`, `place` and the row's number.

    Of a row that stands in `rows` more than once, as where a small class is balanced, every copy
    has its own: with the same noise it would teach nothing further. (Copies that several
    processes share are counted by each for itself.)
    """
    copies: Counter[int] = Counter()
    made = []
    for row in rows.tolist():
        which = (row, copies[row]) if copies[row] else (row,)
        copies[row] += 1
        made.append(torch.Generator().manual_seed(derive(seed, *place, *which)))
    return made


def normal(
    drawing: Sequence[torch.Generator], shape: Sequence[int], device: torch.device
) -> Tensor:
    """Unit normal numbers (N, *shape) on `device`, a row from each generator."""
    size = tuple(shape)
    return torch.stack([torch.randn(size, generator=each) for each in drawing]).to(device)


def uniform(drawing: Sequence[torch.Generator], device: torch.device) -> Tensor:
    """A number (N,) in [0, 1) from each generator, on `device`."""
    return torch.cat([torch.rand(1, generator=each) for each in drawing]).to(device)


def hide(
    labels: Tensor, sizes: Sequence[int], drawing: Sequence[torch.Generator], share: float
) -> Tensor:
    """`labels` (N, K) with each, on its own, "not told" in a `share` of the images.

    Every part of what one can tell is then learned with and without the rest.
    """
    hidden = labels.clone()
    for place, size in enumerate(sizes):
        chosen = uniform(drawing, labels.device) < share
        hidden[:, place] = torch.where(chosen, size, labels[:, place])
    return hidden
