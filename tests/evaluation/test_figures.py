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


def strips(figure):
    """Height of every strip's bars above its floor, by the strip's name without its count."""
    axes = figure.axes[0]
    names = [label.get_text().rsplit("\n", 1)[0] for label in axes.get_yticklabels()]
    data = [patch.get_data() for patch in axes.patches]
    return {
        name: (each.values - each.baseline, each.edges)
        for name, each in zip(names, data, strict=True)
    }


def where(bars):
    """Left edges of the bins that hold anything."""
    heights, edges = bars
    return edges[:-1][heights > 1e-9].round(3).tolist()


def test_scores_are_apart_by_what_the_call_came_to():
    found = strips(distributions.outcome_figure(patients(), "p", threshold=0.5))
    assert where(found["true\npositive"]) == [0.7, 0.9]
    assert where(found["false\nnegative"]) == [0.4]
    assert where(found["true\nnegative"]) == [0.1, 0.2]
    assert where(found["false\npositive"]) == [0.6]


def test_scores_are_apart_by_dataset_and_only_of_several():
    frame = patients().assign(dataset=list("xyxxyx"))
    found = strips(distributions.dataset_figure(frame, "p"))
    assert list(found) == ["x\nn", "x\np", "y\nn", "y\np"]
    assert where(found["y\np"]) == [0.7]
    assert "scores_by_dataset" in distributions.drawn(frame, "p", threshold=0.5)
    alone = distributions.drawn(frame.assign(dataset="x"), "p", threshold=0.5)
    assert list(alone) == ["scores", "scores_by_outcome"]


def test_uncertainty_is_drawn_where_the_model_tells_it():
    frame = patients().assign(dataset="", uncertainty=[0, 0.35, 3, 1.5, 0.35, 0.95])
    found = strips(distributions.drawn(frame, "p", threshold=0.5)["uncertainty"])
    assert where(found["false\npositive"]) == [2.9]  # the last bin holds its upper edge
    assert where(found["true\npositive"]) == [0.3, 0.9]
    constant = distributions.uncertainty_figure(frame.assign(uncertainty=0.0), "p", threshold=0.5)
    assert constant.axes[0].get_xlim() == (-0.5, 0.5)


def test_sensitivity_falls_and_specificity_rises_at_the_scores():
    figure = figures.threshold_figure(patients(), "p", threshold=0.5)
    sensitivity, specificity = (line.get_xydata() for line in figure.axes[0].lines[:2])

    def at(curve, threshold):
        return curve[curve[:, 0] < threshold][-1, 1]

    # positives 0.4, 0.7, 0.9; others 0.1, 0.2, 0.6
    assert [at(sensitivity, each) for each in (0.3, 0.5, 0.8)] == pytest.approx([1, 2 / 3, 1 / 3])
    assert [at(specificity, each) for each in (0.15, 0.5, 0.7)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_the_reliability_shows_what_the_temperature_would():
    metrics = {"brier": 0.1, "ece": 0.2, "ece_scaled": 0.123}
    figure = figures.reliability_figure(patients(), "p", metrics, temperature=2.0)
    assert "at temperature 2, ECE 0.123" in words(figure)
    shown = figure.axes[0].lines[1].get_xdata()
    odds = np.sqrt(np.array([0.1, 0.2, 0.4, 0.6, 0.7, 0.9]) / [0.9, 0.8, 0.6, 0.4, 0.3, 0.1])
    assert list(shown) == pytest.approx(list(odds / (1 + odds)))
    assert len(figures.reliability_figure(patients(), "p", metrics).axes[0].lines) == 2
