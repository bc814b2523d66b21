"""The parity check of a sampled dataset: what it logs, and what ends the run."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.phantom import draw_patient, render
from mammo.data.writer import DatasetWriter
from mammo.errors import DataError
from mammo.evaluation.parity_check import UNTOLD, check_parity, real_summary
from mammo.run import MemoryRun

TWO = TASKS["malignancy2"]


def dataset(
    folder: Path, pixels: np.ndarray[Any, Any], masks: np.ndarray[Any, Any] | None = None
) -> Dataset:
    """Images (N, 1, H, W), every second one of the same class."""
    writer = DatasetWriter(
        folder / "x.partial", name="x", classes=TWO, shape=pixels.shape[1:], dtype=pixels.dtype.name
    )
    for number, image in enumerate(pixels):
        row = {
            "group_id": f"p{number}", "image_id": f"i{number}", "label": TWO.names[number % 2],
            "label_kind": TWO.label_kind, "split": "train",
        }  # fmt: skip
        writer.add(image, row, None if masks is None else masks[number])
    return writer.finish(folder / "datasets")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray[Any, Any]:
    """Left breasts of 40 phantom patients, 48 pixels high, 16 bits."""
    drawn = [render(draw_patient(n, seed=5), "L", "MLO", image_size=48)[0] for n in range(40)]
    return np.rint(np.stack(drawn)[:, None] * 65535).astype(np.uint16)


def about(data: Dataset, **settings: Any) -> dict[str, Any]:
    asked = {"masks": False, "told": True, **settings}
    return {"real_summary": real_summary(data, np.arange(len(data)), **asked)}


def test_equal_encodings_are_logged_as_a_table_a_figure_and_few_numbers(
    tmp_path: Path, pictures: np.ndarray[Any, Any]
) -> None:
    tracked = MemoryRun(tmp_path / "run")
    known = about(dataset(tmp_path / "real", pictures[:20]))
    metrics = check_parity(tracked, known, dataset(tmp_path / "drawn", pictures[20:]))
    assert metrics["parity/mismatches"] == 0
    assert set(metrics) == {
        "parity/mismatches", "parity/warnings", "parity/mean_difference",
        "parity/background_difference", "parity/high_frequency_db",
    }  # fmt: skip
    assert abs(metrics["parity/high_frequency_db"]) < 3
    assert list(tracked.tables["parity"].columns) == [
        "quantity", "real", "synthetic", "difference", "tolerance", "verdict", "note",
    ]  # fmt: skip
    assert tracked.figures == ["parity"]


def test_another_encoding_ends_the_run_in_one_line_after_all_is_logged(
    tmp_path: Path, pictures: np.ndarray[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    tracked = MemoryRun(tmp_path / "run")
    known = about(dataset(tmp_path / "real", pictures[:20]))
    drawn = dataset(tmp_path / "drawn", 65535 - pictures[20:])
    with pytest.raises(DataError, match="the grey scale is inverted: air is bright") as error:
        check_parity(tracked, known, drawn)
    assert "\n" not in str(error.value) and "on_mismatch=warn keeps them" in str(error.value)
    assert tracked.last["parity/mismatches"] == 1
    assert tracked.figures == ["parity"] and "parity" in tracked.tables
    with caplog.at_level(logging.WARNING, "mammo"):
        kept = check_parity(tracked, known, drawn, on_mismatch="warn")
    assert kept["parity/mismatches"] == 1
    assert "parity: the grey scale is inverted" in caplog.text


def test_the_worst_differences_are_named_in_the_log(
    tmp_path: Path, pictures: np.ndarray[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    known = about(dataset(tmp_path / "real", pictures[:20]))
    noise = np.random.default_rng(0).normal(0, 3000, pictures[20:].shape)
    noisy = np.clip(pictures[20:] + noise, 0, 65535).astype(np.uint16)
    with caplog.at_level(logging.WARNING, "mammo"):
        check_parity(MemoryRun(tmp_path / "run"), known, dataset(tmp_path / "drawn", noisy))
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.count("instead of") == 4 and "spectrum_12" in line


def test_a_generator_that_is_told_nothing_is_compared_whatever_its_images_stand_for(
    tmp_path: Path, pictures: np.ndarray[Any, Any]
) -> None:
    known = about(dataset(tmp_path / "real", pictures[:20]), told=False)
    assert list(known["real_summary"]["classes"]) == [UNTOLD]
    metrics = check_parity(
        MemoryRun(tmp_path / "run"), known, dataset(tmp_path / "drawn", pictures[20:])
    )
    assert metrics["parity/mismatches"] == 0


def test_of_a_generator_of_masks_the_masks_are_compared(tmp_path: Path) -> None:
    """Real masks cover 9 of 64 pixels; synthetic ones are stored as images of the same depth."""
    masks = np.zeros((20, 1, 8, 8), np.uint8)
    masks[:, :, 2:5, 1:4] = 255
    grey = np.random.default_rng(0).integers(0, 65536, (20, 1, 8, 8)).astype(np.uint16)
    known = about(dataset(tmp_path / "real", grey, masks), masks=True)
    tracked = MemoryRun(tmp_path / "run")
    same = dataset(tmp_path / "same", (masks.astype(np.uint16) * 257))
    assert check_parity(tracked, known, same)["parity/warnings"] == 0
    whole = dataset(tmp_path / "whole", np.full((20, 1, 8, 8), 65535, np.uint16))
    assert check_parity(tracked, known, whole)["parity/warnings"] == 1
    assert tracked.tables["parity"].set_index("quantity")["real"]["mean"] == pytest.approx(9 / 64)
    assert tracked.figures == []


def test_a_generator_without_a_summary_is_told_and_not_refused(
    tmp_path: Path, pictures: np.ndarray[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    drawn = dataset(tmp_path, pictures[:4])
    with caplog.at_level(logging.WARNING, "mammo"):
        assert check_parity(MemoryRun(tmp_path / "run"), {}, drawn) == {}
    assert "keeps no summary of its real images" in caplog.text


def test_nothing_of_a_single_image_or_patient_is_in_the_summary(
    tmp_path: Path, pictures: np.ndarray[Any, Any]
) -> None:
    """A model goes further than its data: means, spreads and a mean image of 8 by 8 cells."""
    summary = about(dataset(tmp_path, pictures))["real_summary"]
    for each in summary["classes"].values():
        assert np.shape(each["layout"]) == (1, 8, 8)
        assert set(each) == {
            "images", "patients", "distinct", "mean", "sd", "spread", "histogram", "layout",
        }  # fmt: skip
    assert "p1" not in str(summary) and "i1" not in str(summary)
