"""Crops of pictures that show no breast."""

import numpy as np
import pytest

from mammo.data.breast import CROPS, look_at
from mammo.data.picture import Picture
from mammo.errors import DataError


def grey(level: float) -> Picture:
    return Picture(np.full((40, 30), level, np.float32), None, 16)


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_a_picture_of_one_grey_is_kept_whole(level: float) -> None:
    """Nothing in it is air: all of it may be tissue."""
    assert CROPS["breast"](look_at(grey(level))).box == (0, 40, 0, 30)


def test_a_black_picture_has_no_breast() -> None:
    with pytest.raises(DataError, match="no breast was found"):
        CROPS["breast"](look_at(grey(0.0)))
