"""Lesions and pictures take the same way: drawn, cropped, turned and resized alike."""

from pathlib import Path

import numpy as np
import pytest
from dicoms import half_breast, write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mammo.data.breast import CROPS, look_at
from mammo.data.geometry import Frame, lay, lay_mask
from mammo.data.picture import Picture
from mammo.data.prepare import Prepared, Recipe, Refused, prepare
from mammo.data.regions import draw_box, draw_circle, draw_polygon
from mammo.data.release import Record

SHAPE = (600, 500)
Mask = NDArray[np.bool_]


def disc(x: float, y: float, radius: float, shape: tuple[int, int] = SHAPE) -> Mask:
    mask = np.zeros(shape, bool)
    draw_circle(mask, x, y, radius)
    return mask


def dice(one: Mask, other: Mask) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def whole(shape: tuple[int, int], *, mirrored: bool = False) -> Frame:
    return Frame((0, shape[0], 0, shape[1]), mirrored, "", None, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_crop_and_flip_keep_a_mask_to_the_pixel(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(8, 40)), data.draw(st.integers(8, 40))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((60, 50)) > 0.5
    top, left = data.draw(st.integers(0, 60 - height)), data.draw(st.integers(0, 50 - width))
    mirrored = data.draw(st.booleans())
    frame = Frame((top, top + height, left, left + width), mirrored, "", None, 1.0)
    cut = mask[top : top + height, left : left + width]
    laid = lay_mask(mask, frame, (height, width)) > 0
    np.testing.assert_array_equal(laid, cut[:, ::-1] if mirrored else cut)


@settings(max_examples=60, deadline=None)
@given(
    stored_radius=st.floats(20, 80),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    size=st.sampled_from([(300, 250), (256, 256), (222, 333), (600, 500), (450, 375)]),
    mirrored=st.booleans(),
)
def test_a_disc_is_still_that_disc_after_resizing(
    stored_radius: float, place: tuple[float, float], size: tuple[int, int], mirrored: bool
) -> None:
    scale = min(size[0] / SHAPE[0], size[1] / SHAPE[1])
    radius = stored_radius / scale
    x, y = (
        radius + share * (side - 1 - 2 * radius)
        for share, side in zip(place, (500, 600), strict=True)
    )
    lesion, frame = disc(x, y, radius), whole(SHAPE, mirrored=mirrored)
    laid = lay_mask(lesion, frame, size) > 0
    shown = lay(Picture(np.where(lesion, 0.9, 0.1), None, 16), frame, size) > 0.5
    assert dice(laid, shown) >= 0.99
    height, width = round(SHAPE[0] * scale), round(SHAPE[1] * scale)
    down, across = height / SHAPE[0], width / SHAPE[1]  # alike but for whole pixels
    # the middle of pixel i is the point i, which is half a pixel from its edge
    new_x, new_y = (x + 0.5) * across - 0.5, (y + 0.5) * down - 0.5
    new_x = width - 1 - new_x if mirrored else new_x
    rows, columns = np.ogrid[: size[0], : size[1]]
    from_x = (columns - new_x - (size[1] - width) // 2) / across
    from_y = (rows - new_y - (size[0] - height) // 2) / down
    # drawn anew on the smaller grid: two drawings of so small a disc differ by a pixel here and
    # there, by 0.013 at a radius of 20 at most
    ideal = from_x**2 + from_y**2 <= radius**2
    assert dice(laid, ideal) >= (0.99 if stored_radius > 30 else 0.985)


@pytest.mark.parametrize("kind", ["circle", "polygon", "mask", "dicom", "pieces"])
@pytest.mark.parametrize("wall", ["left", "right"])
def test_every_kind_of_lesion_lies_where_the_picture_shows_it(
    tmp_path: Path, kind: str, wall: str
) -> None:
    x, y, radius = (150, 280, 60) if wall == "left" else (349, 280, 60)
    lesion = disc(x, y, radius)
    stored = half_breast(SHAPE, wall=wall, level=1500)
    path = write_dicom(tmp_path / "a.dcm", np.where(lesion, 4000, stored))
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    corners = tuple((x + radius * np.cos(a), y + radius * np.sin(a)) for a in turn)
    Image.fromarray(lesion.astype(np.uint8) * 255).save(tmp_path / "m.png")
    Image.fromarray((lesion & (np.arange(500) < x)).astype(np.uint8)).save(tmp_path / "l.png")
    right = write_dicom(tmp_path / "r.dcm", (lesion & (np.arange(500) >= x)) * 65535, bits=16)
    given = {
        "circle": {"circles": ((x, y, radius),)},
        "polygon": {"polygons": (corners,)},
        "mask": {"masks": (tmp_path / "m.png",)},
        "dicom": {"masks": (write_dicom(tmp_path / "m.dcm", lesion * 255, bits=8),)},
        "pieces": {"masks": (tmp_path / "l.png", right)},  # a label map and black and white
    }[kind]
    done = prepare(Record((path,), "p", "i", "l", **given), Recipe((256, 256), dtype="uint16"))  # type: ignore[arg-type]
    assert isinstance(done, Prepared)
    assert done.mask is not None
    seen = done.image[0] > 0.7 * 65535
    assert seen.sum() > 1000
    assert dice(done.mask[0] > 0, seen) >= 0.99


def test_boxes_end_before_their_second_corner_and_several_are_joined() -> None:
    mask = np.zeros((10, 10), bool)
    draw_box(mask, 2, 3, 5, 4)
    draw_box(mask, -7, 8, 2.5, 99)
    assert {(int(x), int(y)) for y, x in np.argwhere(mask)} == {
        (2, 3), (3, 3), (4, 3), *((x, y) for x in (0, 1, 2) for y in (8, 9)),
    }  # fmt: skip


def test_polygons_follow_the_even_odd_rule() -> None:
    square = ((2, 2), (8, 2), (8, 8), (2, 8))
    mask, box = np.zeros((12, 12), bool), np.zeros((12, 12), bool)
    draw_polygon(mask, square)
    draw_box(box, 2, 2, 8, 8)
    assert mask.sum() == box.sum() == 36
    ring = np.zeros((12, 12), bool)
    draw_polygon(ring, (*square, (2, 2), (4, 4), (4, 6), (6, 6), (6, 4), (4, 4)))
    assert ring.sum() == 36 - 4  # the inner square of 2 x 2 is a hole
    point = np.zeros((12, 12), bool)
    draw_polygon(point, ((3.2, 7.9),))
    assert np.argwhere(point).tolist() == [[8, 3]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 35), st.floats(-5, 35)), min_size=3, max_size=8))
def test_a_polygon_holds_the_points_around_which_it_winds_an_odd_number_of_times(
    corners: list[tuple[float, float]],
) -> None:
    mask = np.zeros((30, 30), bool)
    draw_polygon(mask, corners)
    for row, column in np.ndindex(mask.shape):
        crossings = [
            x + (row - y) * (u - x) / (v - y)
            for (x, y), (u, v) in zip(corners, corners[1:] + corners[:1], strict=True)
            if (y <= row) != (v <= row)
        ]
        if all(abs(at - column) > 1e-6 for at in crossings):  # on the line, rounding decides
            assert mask[row, column] == sum(at < column for at in crossings) % 2


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", half_breast())
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "m.png")
    done = prepare(Record((path,), "p", "i", "l", masks=(tmp_path / "m.png",)), Recipe((32, 32)))
    assert done == Refused("its mask has shape (5, 7), the picture (96, 72)")


def test_a_big_picture_is_looked_at_by_some_of_its_pixels_and_framed_as_before() -> None:
    """Of 2048 x 1536 pixels, a fourth of those each way; the box is that of the drawn breast."""
    stored = half_breast((2048, 1536), level=3000)
    frame = CROPS["breast"](look_at(Picture(stored.astype(np.float32) / 4095, None, 12)), "")
    rows = np.flatnonzero(stored.any(1))
    top, bottom, left, right = frame.box
    assert left == 0
    # eight pixels are one of the copy, and a rim of two is left around the breast
    assert 0 <= rows[0] - top <= 32
    assert 0 <= bottom - rows[-1] - 1 <= 32
    assert 0 <= right - round(0.6 * 1536) <= 32


def test_an_area_average_does_not_depend_on_the_bands_it_is_made_in() -> None:
    values = np.random.default_rng(1).random((640, 480)).astype(np.float32)
    laid = lay(Picture(values, None, 16), whole(values.shape), (160, 120))
    blocks = values.reshape(160, 4, 120, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(laid, blocks, atol=1e-6)
