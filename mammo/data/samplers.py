"""In which order, and how often, the training rows of one epoch are shown."""

import numpy as np
from numpy.typing import NDArray

from mammo.registry import Registry

SAMPLERS = Registry("sampler")

Positions = NDArray[np.int64]


@SAMPLERS.register("random")
def random(label_ids: NDArray[np.int64], seed: int, *, batch_size: int) -> Positions:
    """Every row once, shuffled."""
    return np.random.default_rng(seed).permutation(len(label_ids))


@SAMPLERS.register("weighted")
def weighted(label_ids: NDArray[np.int64], seed: int, *, batch_size: int) -> Positions:
    """As many draws as rows, with replacement; a row's chance is inverse to its class's size.

    Each class is drawn equally often on average. Without replacement the weights would change
    the order alone: all rows would still be drawn once.
    """
    _, codes, sizes = np.unique(label_ids, return_inverse=True, return_counts=True)
    chance = 1.0 / (len(sizes) * sizes[codes])
    return np.random.default_rng(seed).choice(len(label_ids), size=len(label_ids), p=chance)


@SAMPLERS.register("balanced")
def balanced(label_ids: NDArray[np.int64], seed: int, *, batch_size: int) -> Positions:
    """Batches in which the class counts differ by one at most; all batches are full.

    The number of batches is rows / `batch_size` rounded, one at least. Within a class no row
    comes again before all others of the class have come, so the rows of a small class repeat
    and those of a large one may be left out of an epoch.
    """
    rng = np.random.default_rng(seed)
    size = min(batch_size, len(label_ids))
    batches = max(1, (2 * len(label_ids) + size) // (2 * size))
    classes = np.unique(label_ids)
    # Places go round the classes across batches too, so that the epoch is balanced as a whole.
    turn = rng.permutation(len(classes))[np.arange(batches * size) % len(classes)]
    out = np.empty(batches * size, np.int64)
    for number, label in enumerate(classes):
        places = np.flatnonzero(turn == number)
        out[places] = _in_rounds(np.flatnonzero(label_ids == label), len(places), rng)
    within = rng.permuted(np.tile(np.arange(size), (batches, 1)), axis=1)
    return np.take_along_axis(out.reshape(batches, size), within, axis=1).ravel()


def _in_rounds(positions: Positions, count: int, rng: np.random.Generator) -> Positions:
    """`count` of `positions`, shuffled afresh each time all have been used."""
    rounds = [rng.permutation(positions) for _ in range(-(-count // len(positions)))]
    return np.concatenate([*rounds, positions[:0]])[:count]
