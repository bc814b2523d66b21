"""What pictures show at a glance: each planted fault is found on its image alone."""

from pathlib import Path

import numpy as np
import pytest
from fixtures import Values, breast, rows_of, store

from mammo.doctor.pictures import glance, picture_findings, removed_marks

COUNT = 12
SPOILT = 5


def black(picture: Values) -> Values:
    return np.zeros_like(picture)


def constant(picture: Values) -> Values:
    return np.full_like(picture, 0.5)


def white(picture: Values) -> Values:
    return np.where(picture > 0.25, 1.0, picture).astype(np.float32)


def negative(picture: Values) -> Values:
    return 1 - picture


def scrap(picture: Values) -> Values:
    out = np.zeros_like(picture)
    out[:8, :8] = picture[28:36, :8]
    return out


def lettered(picture: Values) -> Values:
    """R CC in the corner that the breast leaves dark: strokes two pixels wide."""
    out = picture.copy()
    for column in (36, 40, 44):
        out[3:9, column : column + 2] = 1.0
    return out


FAULTS = [
    (black, "empty picture"),
    (constant, "empty picture"),
    (white, "saturated picture"),
    (negative, "negative"),
    (scrap, "little breast"),
    (lettered, "print in the picture"),
]


@pytest.mark.parametrize(("spoil", "name"), FAULTS)
def test_a_spoilt_picture_is_found_and_no_other(tmp_path: Path, spoil, name: str) -> None:
    def picture(number: int) -> Values:
        return spoil(breast(number)) if number == SPOILT else breast(number)

    data = store(tmp_path, rows_of(COUNT), picture)
    looks = glance(data, range(COUNT)).looks
    found = {each.name: each for each in picture_findings(looks, cropped=False)}
    assert found[name].rows == ((SPOILT,),)
    assert set(found) == {name}


def test_sound_breasts_have_no_finding(tmp_path: Path) -> None:
    data = store(tmp_path, rows_of(COUNT), breast)
    assert picture_findings(glance(data, range(COUNT)).looks, cropped=False) == []


def test_rows_are_those_of_the_manifest(tmp_path: Path) -> None:
    data = store(tmp_path, rows_of(COUNT), lambda n: black(breast(n)) if n == 7 else breast(n))
    (found,) = picture_findings(glance(data, [3, 7, 9]).looks, cropped=True)
    assert found.rows == ((7,),)


def test_marks_outside_the_breast_come_from_the_manifest(tmp_path: Path) -> None:
    rows = rows_of(COUNT, marks=0.0)
    rows[4]["marks"] = 0.02
    (found,) = removed_marks(store(tmp_path, rows, breast).manifest)
    assert found.rows == ((4,),)


def test_a_thumbnail_is_the_mean_of_its_pixels(tmp_path: Path) -> None:
    steps = np.repeat(np.repeat(np.arange(256).reshape(16, 16) / 255, 4, 0), 3, 1)
    data = store(tmp_path, rows_of(2), lambda number: steps.astype(np.float32))
    (first, _) = glance(data, [0, 1]).thumbnails
    np.testing.assert_allclose(first, np.arange(256) / 255, atol=1e-6)
