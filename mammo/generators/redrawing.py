"""Drawing what is rejected again, with further seeds, up to a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.errors import DataError
from mammo.generators.asking import further_seed

# Draws of one image. Where 3 of 10 are accepted, 1 image in 50 million is never: below that a
# generator, not bad luck, is to blame.
ATTEMPTS = 50
HOPELESS = 256  # draws after which at least one must have been accepted

# (places among the images, their seeds) -> arrays with a row each, and which rows are accepted
Draw = Callable[[Sequence[int], Sequence[int]], tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]]


@dataclass(frozen=True)
class Accepted:
    """Images in the order in which they were asked for, with the seeds that gave them."""

    arrays: dict[str, NDArray[Any]]
    seeds: list[int]
    draws: int  # of images, the rejected ones included


def until_accepted(
    asked: Sequence[tuple[str, int]], draw: Draw, *, what: str, why: Callable[[str], str]
) -> Accepted:
    """Draw an image for each class and first seed of `asked`, again while it is rejected.

    Which seeds an image is tried with depends on its first seed alone. DataError gives up on
    `what`; `why` says for a class what its images lack.
    """
    seeds = [seed for _, seed in asked]
    arrays: dict[str, NDArray[Any]] = {}
    missing, draws = list(range(len(asked))), 0
    for attempt in range(ATTEMPTS):
        tried = [further_seed(seeds[place], attempt) for place in missing]
        drawn, accepted = draw(missing, tried)
        draws += len(missing)
        if not arrays:
            arrays = {
                name: np.zeros((len(asked), *a.shape[1:]), a.dtype) for name, a in drawn.items()
            }
        places = np.array(missing)[accepted]
        for name, array in drawn.items():
            arrays[name][places] = array[accepted]
        for place, seed, taken in zip(missing, tried, accepted, strict=True):
            seeds[place] = seed if taken else seeds[place]
        missing = [place for place, taken in zip(missing, accepted, strict=True) if not taken]
        if not missing:
            return Accepted(arrays, seeds, draws)
        if draws >= HOPELESS and len(missing) == len(asked):
            break
    raise DataError(
        f"{len(missing)} of {len(asked)} {what} were rejected {attempt + 1} times each "
        f"({len(asked) - len(missing)} of {draws} draws accepted): {why(asked[missing[0]][0])}"
    )
