"""The cases that are shown, picked by hand from a table, and a figure of them in a report."""

from pathlib import Path

import classifier_data
import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps

from mammo.evaluation.cases import most_confident, saliency_figure
from mammo.run import MemoryRun, Reference
from mammo.steps import evaluate


def table(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """Rows of image, true class and score of the positive class."""
    frame = pd.DataFrame(rows, columns=["image_id", "label", "score/malignant"])
    frame["score/benign"] = 1 - frame["score/malignant"]
    return frame[["image_id", "label", "score/benign", "score/malignant"]]


def test_the_surest_right_and_wrong_calls_of_each_class() -> None:
    frame = table(
        ("a", "benign", 0.10), ("b", "benign", 0.05), ("c", "benign", 0.30),
        ("d", "benign", 0.70), ("e", "malignant", 0.90), ("f", "malignant", 0.95),
        ("g", "malignant", 0.20), ("h", "malignant", 0.40), ("i", "malignant", 0.90),
    )  # fmt: skip
    found = most_confident(pd.concat([frame, frame]), 2)  # an image in two splits counts once
    assert found.drop(columns="score").to_numpy().tolist() == [
        ["benign", "right", "benign", "b"],
        ["benign", "right", "benign", "a"],
        ["benign", "wrong", "malignant", "d"],
        ["malignant", "right", "malignant", "f"],
        ["malignant", "right", "malignant", "e"],  # before i: equal scores go by their names
        ["malignant", "wrong", "benign", "g"],
        ["malignant", "wrong", "benign", "h"],
    ]
    np.testing.assert_allclose(found["score"], [0.95, 0.9, 0.7, 0.95, 0.9, 0.8, 0.6])


def test_a_case_is_drawn_beside_its_map() -> None:
    frame = table(("a", "benign", 0.1), ("b", "malignant", 0.8), ("c", "malignant", 0.9))
    cases = most_confident(frame, 2)
    images = np.random.default_rng(0).random((3, 2, 6, 4), np.float32)
    maps = np.random.default_rng(1).random((3, 6, 4), np.float32)
    figure = saliency_figure(cases, images, maps)
    grid = np.array(figure.axes).reshape(2, 4)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["benign, right", "malignant, right"]
    titles = [axes.get_title("left") for axes in grid[1]]
    assert titles == ["malignant 0.90", "", "malignant 0.80", ""]
    alone, under = grid[1, 2].images, grid[1, 3].images  # of b: c is the surer
    np.testing.assert_array_equal(alone[0].get_array(), images[2, 0])
    np.testing.assert_array_equal(under[0].get_array(), images[2, 0])
    np.testing.assert_array_equal(under[1].get_array(), maps[2])
    np.testing.assert_allclose(under[1].get_alpha(), 0.6 * maps[2])
    assert under[1].get_cmap() == colormaps["jet"]
    assert not any(axes.images for axes in grid[0, 2:])  # benign has one case


@pytest.mark.doors
def test_evaluate_shows_where_the_model_looked(tmp_path: Path) -> None:
    data = classifier_data.write(tmp_path / "data", patients=10)
    run = classifier_data.tracked(tmp_path / "training", data)
    classifier_data.train(run, epochs=1)
    folder = run.folder / "model"
    tracked = MemoryRun(
        tmp_path / "evaluation",
        {
            "data": [Reference("runs:/abc/dataset", data.folder, data.digest, "abc")],
            "model": [Reference("runs:/def/model", folder, "digest", "def")],
        },
    )
    evaluate.run(tracked, data="data", model="model", saliency=2, bootstrap=20, device="cpu")
    shown, every = tracked.tables["saliency_cases"], tracked.tables["predictions"]
    tested = every[every["split"] == "test"]
    pd.testing.assert_frame_equal(shown, most_confident(tested, 2))
    assert "saliency" in tracked.figures
    report = (tracked.folder / "report.html").read_text()
    assert "Where the model looked" in report
    assert "for the class it was called (body.layer3)" in report
    assert all(image in report for image in shown["image_id"])
