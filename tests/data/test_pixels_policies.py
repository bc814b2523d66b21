"""What becomes of a file by policy: grey scales, raw values, frames, flags, marks, sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicoms import half_breast, write_dicom
from PIL import Image, ImageDraw, TiffImagePlugin
from pydicom.dataset import Dataset

from mammo.data.pixels import read_mask, read_pixels, to_units
from mammo.data.prepare import LeftOut, Prepared, Recipe, Refused, prepare
from mammo.data.release import Record
from mammo.errors import DataError

RAMP = np.arange(4096).reshape(64, 64)


def one(path: Path, **more: Any) -> Record:
    return Record((path,), "p", "i", "l", **more)


def prepared(record: Record, **recipe: Any) -> Prepared:
    done = prepare(record, Recipe(**{"size": (64, 64), "crop": "none", **recipe}))
    assert isinstance(done, Prepared), done
    return done


def code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def viewed(value: str, meaning: str, *modifiers: tuple[str, str]) -> dict[str, Any]:
    view = code(value, meaning)
    view.ViewModifierCodeSequence = [code(*each) for each in modifiers]
    return {"ViewCodeSequence": [view]}


@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("recipe", "tags", "black", "white"),
    [
        ({"intensity": "none"}, {}, -100, 2 * 4095 - 100),
        ({"intensity": "header"}, {"WindowCenter": 3000.5, "WindowWidth": 2001}, 2000, 4000),
        ({"intensity": "header"}, {"WindowCenter": 3000, "WindowWidth": 2000,
                                   "VOILUTFunction": "LINEAR_EXACT"}, 2000, 4000),
        ({"intensity": "fixed", "fixed_range": (500.0, 5500.0)}, {}, 500, 5500),
        ({"intensity": "percentile"}, {}, None, None),
    ],
)  # fmt: skip
def test_stored_pixels_map_back_to_the_units_of_the_file(
    tmp_path: Path,
    recipe: dict[str, Any],
    tags: dict[str, Any],
    black: float | None,
    white: float | None,
    polarity: str,
) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-100,
                       PhotometricInterpretation=polarity, **tags)  # fmt: skip
    units = RAMP * 2.0 - 100
    if black is None or white is None:
        black, white = np.percentile(units, (0.5, 99.5))
    done = prepared(one(path), **recipe)
    ends = (black, white) if polarity == "MONOCHROME2" else (white, black)
    np.testing.assert_allclose((done.grey_low, done.grey_high), ends, atol=1e-2)
    back = to_units(done.image[0] / 65535, done.grey_low, done.grey_high)
    np.testing.assert_allclose(back, np.clip(units, black, white), atol=0.1)  # of 8190 / 65535


def test_a_fixed_range_makes_files_of_several_depths_alike(tmp_path: Path) -> None:
    paths = [
        write_dicom(tmp_path / f"{bits}.dcm", RAMP % 256, bits=bits, WindowCenter=1, WindowWidth=2)
        for bits in (8, 12, 16)
    ]
    values = [read_pixels(p, intensity="fixed", fixed_range=(0, 200)).values for p in paths]
    for each in values:
        np.testing.assert_allclose(each, np.clip(RAMP % 256 / 200, 0, 1), atol=1e-6)


def test_channels_of_a_record_have_one_frame_each(tmp_path: Path) -> None:
    paths = tuple(write_dicom(tmp_path / f"{n}.dcm", RAMP // n) for n in (1, 2))
    done = prepared(Record(paths, "p", "i", "l"))
    np.testing.assert_allclose(done.image / 65535 * 4095, [RAMP, RAMP // 2], atol=0.1)


class TestForProcessing:
    RAW = np.full((64, 64), 8000)
    RAW[16:48, :24] = 80  # a hundredth of the beam comes through

    def write(self, path: Path, **tags: Any) -> Path:
        return write_dicom(path, self.RAW, bits=14, PresentationIntentType="FOR PROCESSING", **tags)

    def test_it_is_refused_with_the_remedies(self, tmp_path: Path) -> None:
        done = prepare(one(self.write(tmp_path / "a.dcm")), Recipe((64, 64)))
        assert isinstance(done, Refused)
        assert "export the FOR PRESENTATION image, or give --for_processing log" in done.reason

    @pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
    def test_the_logarithm_gives_attenuation_whatever_the_polarity(
        self, tmp_path: Path, polarity: str
    ) -> None:
        path = self.write(tmp_path / "a.dcm", PhotometricInterpretation=polarity)
        done = prepared(one(path), for_processing="log", crop="breast")
        # ln(8000 / 80) of at most ln(2^14); air lets everything through
        assert done.image[0].max() / 65535 == pytest.approx(np.log(100) / np.log(2**14), abs=1e-4)
        assert (done.image[0] == 0).any()
        assert (done.wall, done.grey_low) == ("left", 0)
        assert done.grey_high == pytest.approx(np.log(2**14))
        fixed = prepared(one(path), for_processing="log", intensity="fixed",
                         fixed_range=(0.0, 2 * np.log(100)))  # fmt: skip
        assert fixed.image[0, 32, 8] / 65535 == pytest.approx(0.5, abs=1e-4)

    def test_values_that_are_logarithms_already_are_turned_about_alone(
        self, tmp_path: Path
    ) -> None:
        path = self.write(tmp_path / "a.dcm", PixelIntensityRelationship="LOG",
                          PixelIntensityRelationshipSign=1)  # fmt: skip
        got = read_pixels(path, for_processing="log").values
        np.testing.assert_allclose(got, 1 - self.RAW / (2**14 - 1), atol=1e-6)


class TestFrames:
    FRAMES = np.stack([RAMP // 4, RAMP, RAMP // 2, RAMP // 8, RAMP // 16])

    def write(self, path: Path, polarity: str = "MONOCHROME2", **tags: Any) -> Path:
        stored = self.FRAMES if polarity == "MONOCHROME2" else 4095 - self.FRAMES
        write_dicom(path, stored[0], PhotometricInterpretation=polarity, **tags)
        data = pydicom.dcmread(path)
        data.NumberOfFrames, data.PixelData = 5, stored.astype("<u2").tobytes()
        data.save_as(path)
        return path

    @pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_policies_and_numbers_choose_a_frame(
        self, tmp_path: Path, polarity: str, compressed: bool
    ) -> None:
        path = self.write(tmp_path / "a.dcm", polarity)
        if compressed:
            data = pydicom.dcmread(path)
            data.compress(pydicom.uid.RLELossless)
            data.save_as(path)
        for chosen, frame in (
            ({"frames": "central"}, RAMP // 2),
            ({"frames": "maximum"}, RAMP),
            ({"slice_index": 3}, RAMP // 8),
            ({"slice_index": 0, "frames": "maximum"}, RAMP // 4),
        ):
            got = read_pixels(path, **chosen).values  # type: ignore[arg-type]
            np.testing.assert_allclose(got, frame / 4095, atol=1e-6)
        with pytest.raises(DataError, match="it has 5 frames"):
            read_pixels(path)
        with pytest.raises(DataError, match="slice 5 is asked of a file with 5 frames"):
            read_pixels(path, slice_index=5)

    def test_functional_groups_tell_of_window_side_and_spacing(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "a.dcm")
        data = pydicom.dcmread(path)
        shared, window, anatomy, measures = Dataset(), Dataset(), Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = 1024.5, 2049
        anatomy.FrameLaterality = "R"
        measures.PixelSpacing = [0.1, 0.1]
        shared.FrameVOILUTSequence, shared.FrameAnatomySequence = [window], [anatomy]
        shared.PixelMeasuresSequence = [measures]
        data.SharedFunctionalGroupsSequence = [shared]
        data.save_as(path)
        picture = read_pixels(path, slice_index=1)
        np.testing.assert_allclose(picture.values, np.clip(RAMP / 2048, 0, 1), atol=1e-6)
        assert (picture.header.laterality, picture.header.pixel_mm) == ("R", 0.1)


FLAGS: list[tuple[dict[str, Any], str]] = [
    ({"BreastImplantPresent": "YES"}, "implant"),
    (viewed("399162004", "cranio-caudal", ("399209000", "Implant Displaced")), "implant"),
    ({"ViewPosition": "MLOID"}, "implant"),
    (viewed("399162004", "cranio-caudal", ("R-102D6", "Magnification")), "magnification"),
    ({"EstimatedRadiographicMagnificationFactor": 1.8}, "magnification"),
    (viewed("x", "?", ("399055006", "Spot Compression")), "spot"),
    (viewed("x", "?", ("local", "spot compression")), "spot"),
    ({"PaddleDescription": "SPOT 10CM"}, "spot"),
    (viewed("127457009", "tissue specimen from breast"), "biopsy"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "STEREO_SCOUT"]}, "biopsy"),
    ({"BurnedInAnnotation": "YES"}, "marked"),
    ({"BreastImplantPresent": "NO", "BurnedInAnnotation": "NO", "PaddleDescription": "18X24",
      "EstimatedRadiographicMagnificationFactor": 1.07}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("tags", "flag"), FLAGS)
def test_flags_of_the_header_reach_the_manifest_or_leave_the_image_out(
    tmp_path: Path, tags: dict[str, Any], flag: str
) -> None:
    path = write_dicom(tmp_path / "a.dcm", half_breast(), **tags)
    done = prepared(one(path), exclude=frozenset({"nothing"}))
    assert done.file_columns()["flags"] == flag
    if flag:
        left = prepare(one(path), Recipe((64, 64), exclude=frozenset({flag})))
        assert left == LeftOut(f"{flag} (exclude)")
        write_dicom(path, half_breast(), **tags, PresentationIntentType="FOR PROCESSING")
        assert prepare(one(path), Recipe((64, 64), exclude=frozenset({flag}))) == left


def test_flags_of_release_and_header_are_joined(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", half_breast(), BreastImplantPresent="YES")
    assert prepared(one(path, flags=("spot",))).file_columns()["flags"] == "implant;spot"


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({"ViewPosition": "CC"}, "CC"),
        ({"ViewPosition": "MLOID"}, "MLO"),
        ({"ViewPosition": "ML"}, ""),
        (viewed("399162004", "cranio-caudal"), "CC"),
        (viewed("R-10226", "?"), "MLO"),
        (viewed("local", "medio-lateral oblique"), "MLO"),
        (viewed("local", "Cranio-Caudal"), "CC"),
        (viewed("399192008", "cranio-caudal exaggerated laterally"), ""),
    ],
)
def test_the_view_is_told_by_position_code_or_meaning(
    tmp_path: Path, tags: dict[str, Any], view: str
) -> None:
    assert read_pixels(write_dicom(tmp_path / "a.dcm", RAMP, **tags)).header.view == view


@pytest.mark.parametrize(("tag", "flag"), [("L", "wall_differs"), ("R", "")])
def test_a_wall_that_is_not_where_the_tag_has_it_is_flagged(
    tmp_path: Path, tag: str, flag: str
) -> None:
    path = write_dicom(tmp_path / "a.dcm", half_breast(wall="right"), ImageLaterality=tag)
    done = prepared(one(path), crop="breast")
    assert (done.wall, done.file_columns()["flags"]) == ("right", flag)


@pytest.mark.parametrize("crop", ["breast", "film"])
def test_words_beside_the_breast_are_gone_and_were_counted(tmp_path: Path, crop: str) -> None:
    breast = half_breast((640, 512), level=2000)
    words = Image.new("I;16", (512, 640))
    ImageDraw.Draw(words).text((330, 40), "DOE JANE\n1950-02-03\nR CC", fill=4095, font_size=40)
    drawn = np.asarray(words)
    assert not breast[drawn > 0].any()
    stored = np.where(drawn > 0, 4095, breast)
    clean = prepared(one(write_dicom(tmp_path / "c.dcm", breast)), crop=crop)
    done = prepared(one(write_dicom(tmp_path / "a.dcm", stored)), crop=crop)
    assert done.image.max() / 65535 == pytest.approx(2000 / 4095, abs=1e-3)
    for each in (clean, done):
        bright = each.image[0] > 1000
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        # half an ellipse and nothing else: pi / 4 of its box, widest and whole at the wall
        assert bright.sum() / (len(rows) * len(columns)) == pytest.approx(np.pi / 4, abs=0.05)
        assert columns[0] == 0
    # blocks in which a good part is ink: fewer than the touched, more than the ink itself
    assert 0.3 < (done.marks - clean.marks) / (drawn > 0).mean() < 3
    assert clean.marks < 0.01
    assert done.background == clean.background == 0


def test_what_the_file_was_is_told_for_the_manifest(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", half_breast((96, 72)) + 100, bits=14)
    told = prepared(one(path), crop="breast").file_columns()
    assert (told["file_height"], told["file_width"], told["file_bits"]) == (96, 72, 14)
    assert (told["grey_low"], told["grey_high"]) == (0, 2**14 - 1)
    assert told["background"] == pytest.approx(100 / (2**14 - 1), rel=1e-3)


@pytest.mark.parametrize("name", ["RGB", "YBR_FULL_422", "PALETTE COLOR"])
def test_colour_in_dicom_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, PhotometricInterpretation=name)
    with pytest.raises(DataError, match=f"PhotometricInterpretation is {name}"):
        read_pixels(path)
    path = write_dicom(tmp_path / "b.dcm", RAMP, PhotometricInterpretation="DOE JANE")
    with pytest.raises(DataError, match="PhotometricInterpretation is unknown"):
        read_pixels(path)


def test_absurd_sizes_are_refused_before_decoding(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    data = pydicom.dcmread(path)
    data.Rows = data.Columns = 60000
    data.save_as(path)
    with pytest.raises(DataError, match="60000 x 60000 pixels; at most 67108864"):
        read_pixels(path)
    Image.new("1", (20000, 9000)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="pixels"):
        read_pixels(tmp_path / "b.png")


@pytest.mark.parametrize("how", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_compressed_tiff_is_read_as_it_was_saved(tmp_path: Path, how: str, kind: Any) -> None:
    values = (RAMP % 256 * (257 if kind is np.uint16 else 1)).astype(kind)
    Image.fromarray(values).save(tmp_path / "a.tif", compression=how)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.tif").stored, values)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_film_saved_as_a_negative_is_turned(tmp_path: Path, kind: Any) -> None:
    """TIFF of film scanners often has WhiteIsZero: tissue is stored as low values."""
    top = np.iinfo(kind).max
    film = (RAMP % 256 * (top // 255)).astype(kind)
    said = TiffImagePlugin.ImageFileDirectory_v2()
    said[262] = 0
    stored = film if kind is np.uint8 else top - film  # Pillow turns 8 bits itself
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo=said)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0
    np.testing.assert_allclose(read_pixels(tmp_path / "a.tif").values, film / top, atol=1e-6)


def test_pages_and_floats_of_tiff_are_refused(tmp_path: Path) -> None:
    page = Image.fromarray((RAMP % 256).astype(np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(DataError, match="it has 2 pages"):
        read_pixels(tmp_path / "a.tif")
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match="floating-point pixels"):
        read_pixels(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("text", "bits", "grey"),
    [
        (b"P2\n3 1\n255\n0 128 255\n", 8, [0, 128 / 255, 1]),
        (b"P5\n3 1\n255\n\x00\x80\xff", 8, [0, 128 / 255, 1]),
        (b"P5\n3 1\n65535\n\x00\x00\x80\x00\xff\xff", 16, [0, 0x8000 / 65535, 1]),
        (b"P2\n3 1\n65535\n0 32768 65535\n", 16, [0, 0x8000 / 65535, 1]),
    ],
)
def test_pgm_is_read_in_words_and_in_bytes(
    tmp_path: Path, text: bytes, bits: int, grey: list[float]
) -> None:
    (tmp_path / "a.pgm").write_bytes(text)
    picture = read_pixels(tmp_path / "a.pgm")
    np.testing.assert_allclose(picture.values, [grey], atol=1e-6)
    assert picture.bits == bits


def test_coloured_pictures_become_grey(tmp_path: Path) -> None:
    colors = np.zeros((8, 8, 3), np.uint8)
    colors[:, 4:] = (255, 255, 255)
    colors[0, 0] = (255, 0, 0)
    Image.fromarray(colors).save(tmp_path / "a.png")
    stored = read_pixels(tmp_path / "a.png").stored
    assert stored[0, 0] == 76  # 0.299 of red (ITU-R 601-2)
    assert (stored[4, 0], stored[4, 7]) == (0, 255)


def test_a_mask_is_what_is_brighter_than_half_of_its_brightest(tmp_path: Path) -> None:
    values = np.array([[0, 3, 120, 250]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[False, False, False, True]]
    Image.fromarray(np.zeros((1, 4), np.uint8)).save(tmp_path / "b.png")
    assert not read_mask(tmp_path / "b.png").any()
