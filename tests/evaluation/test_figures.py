"""What the figures say, read back from their artists."""

import numpy as np
import pandas as pd
import pytest

from mammo.evaluation import distributions, figures
from mammo.evaluation.report import Report, Section, Tile, render


def patients():
    frame = pd.DataFrame({"group_id": list("abcdef"), "label": list("nnnppp")})
    high = np.array([0.1, 0.2, 0.6, 0.4, 0.7, 0.9])
    return frame.assign(**{"score/n": 1 - high, "score/p": high})


def words(figure):
    axes = figure.axes[0]
    legend = axes.get_legend()
    inside = [text.get_text() for text in axes.texts]
    return inside + [axes.get_title()] + [text.get_text() for text in (legend or axes).texts]


def test_the_roc_names_its_auc_interval_and_counts():
    # 8 of the 9 pairs are in order
    figure = figures.roc_figure(patients(), "p", interval=(0.5, 1.0), draws=20)
    assert "AUC 0.889 (0.500 to 1.000)" in words(figure)
    assert "ROC, p (3 of 6)" in words(figure)


def test_precision_and_recall_shows_the_prevalence():
    assert "prevalence 0.500" in words(figures.pr_figure(patients(), "p"))


def test_the_confusion_shows_counts_and_shares_of_the_true_class():
    figure = figures.confusion_figure(np.array([[3, 1], [0, 2]]), ["n", "p"], title="")
    assert words(figure)[:4] == ["3\n75%", "1\n25%", "0\n0%", "2\n100%"]


def test_a_class_without_patients_has_no_strip():
    frame = patients().assign(**{"score/x": 0.0})
    figure = distributions.score_figure(frame, "p", threshold=0.5)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["n\n(n = 3)", "p\n(n = 3)"]


def test_wilsons_interval_of_a_hand_example():
    # 0 of 10: upper end z^2 / (n + z^2)
    low, high = figures._wilson(np.array([0.0]), np.array([10]))
    assert low[0] == pytest.approx(0, abs=1e-12)
    assert high[0] == pytest.approx(1.96**2 / (10 + 1.96**2))


def test_all_images_of_a_grid_share_one_scale_of_grey():
    rows = [("real", np.full((2, 1, 8, 8), 0.2)), ("made", np.full((1, 1, 8, 8), 0.9))]
    shown = [axes.images[0] for axes in figures.grid_figure(rows).axes if axes.images]
    assert [image.get_clim() for image in shown] == [(0, 1)] * 3


def test_a_report_escapes_every_text_and_hides_missing_numbers():
    t = [f"<t{number}>" for number in range(11)]
    table = pd.DataFrame({t[0]: [t[1]], "n": [float("nan")], "k": [80.0], "x": [0.123456]})
    section = Section(t[2], t[3], {t[4]: table}, {}, [t[5]])
    text = render(Report(t[6], t[7], [Tile(t[8], t[9], t[10])], [section], {t[0]: t[1]}))
    assert all(f"&lt;{each[1:-1]}&gt;" in text for each in t)
    assert not any(each in text for each in t)
    assert "<td></td><td>80</td><td>0.1235</td>" in text
