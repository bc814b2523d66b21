"""The phantom's release on disk and its adapter."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from PIL import Image

from mammo.data import phantom_release
from mammo.data.breast import crop_to_breast, look_at
from mammo.data.observer import ideal_auc, known_answer_images, matched_filter
from mammo.data.phantom import draw_patient, render
from mammo.data.phantom_dicom import Header, write_mammogram
from mammo.data.phantom_release import write_known_answer, write_release
from mammo.data.pixels import read_pixels
from mammo.data.sources import phantom
from mammo.errors import ConfigError, DataError

HEADER = Header(
    patient="P1",
    image="P1_R_CC",
    release="test",
    laterality="R",
    view="CC",
    age=57,
    vendor="PhantomB",
    inverted=False,
    window=(150, 3800),
    pixel_mm=0.9375,
)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "release"
    write_release(folder, patients=10, image_size=64, seed=1)
    return folder


def test_both_polarities_of_a_phantom_are_the_same_presentation(tmp_path):
    picture, _ = render(draw_patient(0, seed=0), "R", "CC", image_size=64)
    shown = []
    for inverted in (False, True):
        path = tmp_path / f"{inverted}.dcm"
        write_mammogram(path, picture, replace(HEADER, inverted=inverted))
        shown.append(read_pixels(path).values)
    np.testing.assert_allclose(shown[0], shown[1], atol=1e-6)
    np.testing.assert_allclose(shown[0], picture, atol=0.51 / (3800 - 150))


def test_the_files_are_12_bit_mammograms_for_presentation(release):
    for row in phantom.read(release, task="view", options={}).records:
        data = pydicom.dcmread(row.paths[0])
        assert data.SOPClassUID.name.startswith("Digital Mammography X-Ray Image Storage - For Pre")
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        assert (data.BitsAllocated, data.BitsStored, data.HighBit) == (16, 12, 11)
        assert (data.ImageLaterality, data.ViewPosition) == (row.laterality, row.view)
        assert (data.PatientID, data.Manufacturer) == (row.patient, row.vendor)
        assert data.PatientAge == f"{row.age:03.0f}Y"
        assert data.PixelSpacing == data.ImagerPixelSpacing == [3.75, 3.75]
        pixels = data.pixel_array
        air = pixels.max() if data.PhotometricInterpretation == "MONOCHROME1" else pixels.min()
        assert pixels.shape == (64, 48) and (pixels == air).mean() > 0.2


def test_both_polarities_and_all_vendors_occur(release):
    files = [pydicom.dcmread(path) for path in sorted(release.glob("images/*.dcm"))]
    assert {data.PhotometricInterpretation for data in files} == {"MONOCHROME1", "MONOCHROME2"}
    assert {data.Manufacturer for data in files} == {"PhantomA", "PhantomB", "PhantomC"}
    assert len({data.SOPInstanceUID for data in files}) == len(files) == 40
    assert len({data.StudyInstanceUID for data in files}) == 10


def test_each_side_and_view_of_a_patient_is_there_with_the_affected_side_alone_labelled(release):
    rows = phantom.read(release, task="normal_benign_malignant", options={}).records
    assert Counter(row.label for row in rows) == {"normal": 24, "benign": 8, "malignant": 8}
    for patient in {row.patient for row in rows}:
        mine = [row for row in rows if row.patient == patient]
        assert {(r.laterality, r.view) for r in mine} == {
            (side, view) for side in "LR" for view in ("CC", "MLO")
        }
        assert len({row.laterality for row in mine if row.label != "normal"}) <= 1


def test_malignancy2_has_the_affected_breasts_alone_and_rejects_nothing(release):
    read = phantom.read(release, task="malignancy2", options={})
    assert Counter(row.label for row in read.records) == {"benign": 8, "malignant": 8}
    assert read.rejected == []
    for row in read.records:
        mask = np.asarray(Image.open(row.masks[0]))
        assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
        assert mask.shape == pydicom.dcmread(row.paths[0]).pixel_array.shape


def test_density_and_view_are_tasks_of_every_image(release):
    density4 = phantom.read(release, task="density4", options={}).records
    density2 = phantom.read(release, task="density2", options={}).records
    assert [r.label in "CD" for r in density4] == [r.label == "dense" for r in density2]
    assert {r.label for r in density4} == set("ABCD")
    views = Counter(r.label for r in phantom.read(release, task="view", options={}).records)
    assert views == {"CC": 20, "MLO": 20}


def test_the_breast_is_found_with_its_wall_and_no_lesion_is_cut_off(release):
    for row in phantom.read(release, task="malignancy2", options={}).records:
        picture = read_pixels(row.paths[0])
        frame = crop_to_breast(look_at(picture), "")
        assert frame.wall == ("left" if row.laterality == "L" else "right")
        top, bottom, left, right = frame.box
        mask = np.asarray(Image.open(row.masks[0])) > 0
        assert mask[top:bottom, left:right].sum() == mask.sum()


def test_a_patient_does_not_depend_on_how_many_there_are(release, tmp_path):
    write_release(tmp_path / "one", patients=1, image_size=64, seed=1)
    for path in sorted((tmp_path / "one").rglob("P*")):
        assert path.read_bytes() == (release / path.relative_to(tmp_path / "one")).read_bytes()


def test_known_answers_pass_through_the_files_unclipped(tmp_path):
    write_known_answer(tmp_path / "known", images=400, image_size=32, seed=3)
    read = phantom.read(tmp_path / "known", task="malignancy2", options={"variant": "known"})
    values = np.stack([read_pixels(row.paths[0]).values for row in read.records])
    assert values.min() > 0 and values.max() < 1
    known = known_answer_images(400, seed=3, size=32)
    assert [row.label == "malignant" for row in read.records] == list(known.labels == 1)
    reach = 2 * (7 + known.signal.max())
    np.testing.assert_allclose((values - 0.5) * reach, known.images, atol=0.51 * reach / 4095)
    scores = matched_filter(values, known.signal, known.spectrum)
    direct = matched_filter(known.images, known.signal, known.spectrum)
    assert np.corrcoef(scores, direct)[0, 1] > 0.9999
    best = ideal_auc(known.signal, known.spectrum)
    assert json.loads((tmp_path / "known/phantom.json").read_text())["ideal_auc"] == best
    assert read.notes == {"ideal_auc": f"{best:.4f}"}


def test_values_that_a_file_would_clip_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"P1_R_CC: values from 0.0 to 1.5, \[0, 1\] needed"):
        write_mammogram(tmp_path / "a.dcm", np.array([[0.0, 1.5]]), HEADER)
    assert not (tmp_path / "a.dcm").exists()


def test_generate_makes_the_release_once_and_refuses_other_settings(tmp_path):
    options = {"patients": "1", "image_size": "32", "seed": "9"}
    phantom.generate(tmp_path / "a", options=options)
    before = (tmp_path / "a/images.csv").stat().st_mtime_ns
    phantom.generate(tmp_path / "a", options=options)
    assert (tmp_path / "a/images.csv").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"contrast 0\.5: .* was made with 1\.0"):
        phantom.generate(tmp_path / "a", options={**options, "contrast": "0.5"})
    with pytest.raises(ConfigError, match=r"seed 8: .* was made with 9"):
        phantom.read(tmp_path / "a", task="view", options={"seed": "8"})
    with pytest.raises(DataError, match="exists already"):
        write_release(tmp_path / "a", patients=1, image_size=32)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(phantom_release, "write_mammogram", fail)
    with pytest.raises(DataError, match="No space left on device"):
        phantom.generate(tmp_path / "a", options={"patients": "1"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patient": "3"}, "option 'patient': phantom has variant, patients"),
        ({"patients": "0"}, "patients '0': a whole number from 1 on needed"),
        ({"contrast": "nan"}, "contrast 'nan': a number from 0 on needed"),
        ({"variant": "x"}, "variant 'x': breast or known needed"),
        ({"image_size": "big"}, "image_size 'big': a whole number from 16 on needed"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        phantom.generate(tmp_path / "a", options=options)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_task_or_folder_is_named(release, tmp_path):
    with pytest.raises(ConfigError, match="task 'birads': phantom has malignancy2"):
        phantom.read(release, task="birads", options={})
    with pytest.raises(DataError, match=r"no readable phantom\.json"):
        phantom.read(tmp_path, task="view", options={})


@pytest.mark.slow
def test_300_images_at_256_pixels_take_less_than_30_seconds_of_one_core(tmp_path):
    import time

    start = time.process_time()
    write_release(tmp_path / "a", patients=75, image_size=256)
    assert time.process_time() - start < 30
