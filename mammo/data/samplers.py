"""In which order, and how often, the training rows of one epoch are shown.

A sampler gives the positions of an epoch from the labels, the run's seed and the epoch's number.
"""

import numpy as np
from numpy.typing import NDArray

from mammo.data.dealing import at_most, by_class
from mammo.errors import ConfigError
from mammo.registry import Registry
from mammo.seeds import derive

SAMPLERS = Registry("sampler")

Positions = NDArray[np.int64]


@SAMPLERS.register("random")
def random(label_ids: NDArray[np.int64], seed: int, epoch: int) -> Positions:
    """Every row once, shuffled."""
    return _rng(seed, epoch).permutation(len(label_ids))


@SAMPLERS.register("weighted")
def weighted(label_ids: NDArray[np.int64], seed: int, epoch: int) -> Positions:
    """As many draws as rows, with replacement; a row's chance is inverse to its class's size.

    Each class is drawn equally often on average. Without replacement the weights would change
    the order alone: all rows would still be drawn once.
    """
    _, codes, sizes = np.unique(label_ids, return_inverse=True, return_counts=True)
    chance = 1.0 / (len(sizes) * sizes[codes])
    return _rng(seed, epoch).choice(len(label_ids), size=len(label_ids), p=chance)


@SAMPLERS.register("ratio")
def ratio(
    label_ids: NDArray[np.int64], seed: int, epoch: int, *, sampler_ratio: float
) -> Positions:
    """All of the smallest class and at most `sampler_ratio` times as many of another, shuffled.

    Those of a larger class are others each epoch, until all were seen.
    """
    shown = by_class(label_ids, at_most(sampler_ratio), seed=seed, epoch=epoch)
    return _rng(seed, epoch).permutation(shown)


@SAMPLERS.register("balanced")
def balanced(label_ids: NDArray[np.int64], seed: int, epoch: int, *, batch_size: int) -> Positions:
    """Batches in which the class counts differ by one at most; all batches are full.

    The number of batches is rows / `batch_size` rounded, one at least. Within a class no row
    comes again before all others of the class have come, so the rows of a small class repeat
    and those of a large one may be left out of an epoch.
    """
    rng = _rng(seed, epoch)
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


@SAMPLERS.register("one_positive")
def one_positive(
    label_ids: NDArray[np.int64], seed: int, epoch: int, *, batch_size: int, positive: int
) -> Positions:
    """Every row once, shuffled, with a row of the class `positive` in each batch at least.

    Batches share the positives evenly; where there are fewer than batches, they repeat, in turn,
    until each batch has one. All batches but the last are full.
    """
    check_room("one_positive", batch_size)
    rng = _rng(seed, epoch)
    positives = rng.permutation(np.flatnonzero(label_ids == positive))
    rest = rng.permutation(np.flatnonzero(label_ids != positive))
    if not len(positives):
        return rest
    batches = -(-len(label_ids) // batch_size)
    if len(positives) < batches:
        batches = -(-len(rest) // (batch_size - 1))
        positives = _in_rounds(positives, batches, rng)
    smallest = (len(positives) + len(rest)) - (batches - 1) * batch_size  # the last batch
    own = np.full(batches, min(len(positives) // batches, smallest))
    if batches > 1:
        each, more = divmod(len(positives) - own[-1], batches - 1)
        own[:-1] = each + (np.arange(batches - 1) < more)
    else:
        own[0] = len(positives)
    filled = np.append(batch_size - own[:-1], smallest - own[-1])
    parts = zip(_split(positives, own), _split(rest, filled), strict=True)
    return np.concatenate([rng.permutation(np.concatenate(part)) for part in parts])


def check_room(sampler: str, batch_size: int) -> None:
    """Refuse batches that have no room for what the sampler puts into each."""
    if sampler == "one_positive" and batch_size < 2:
        raise ConfigError(
            f"batch_size {batch_size} leaves no room beside the positive that sampler one_positive "
            "puts into each batch; use 2 or more"
        )


def _split(positions: Positions, sizes: NDArray[np.int64]) -> list[Positions]:
    return np.split(positions, np.cumsum(sizes)[:-1])


def _in_rounds(positions: Positions, count: int, rng: np.random.Generator) -> Positions:
    """`count` of `positions`, shuffled afresh each time all have been used."""
    rounds = [rng.permutation(positions) for _ in range(-(-count // len(positions)))]
    return np.concatenate([*rounds, positions[:0]])[:count]


def _rng(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng(derive(seed, "order", epoch))
