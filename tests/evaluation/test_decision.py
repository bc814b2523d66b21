"""Decision curves against hand values and the definition, draw by draw."""

import numpy as np
import pandas as pd
import pytest

from mammo.evaluation.bootstrap import patient_strata, patient_weights
from mammo.evaluation.calibration import scaled
from mammo.evaluation.decision import THRESHOLDS, decision_curve, decision_figure, net_benefit


def patients(labels, scores, ids=None):
    scores = np.asarray(scores, float)
    frame = pd.DataFrame({"group_id": [str(each) for each in ids or range(len(scores))]})
    frame["label"] = np.where(labels, "p", "n")
    return frame.assign(**{"score/n": 1 - scores, "score/p": scores})


def test_net_benefit_of_a_hand_example():
    # at 0.2 two hits and one alarm of four, an alarm costing a quarter; at 0.5 a hit each and alarm
    found = net_benefit([1, 1, 0, 0], [0.9, 0.3, 0.6, 0.1], np.array([0.2, 0.5, 0.75]))
    assert found == pytest.approx([(2 - 0.25) / 4, (1 - 1) / 4, 1 / 4])


def test_acting_on_all_gains_nothing_at_the_prevalence_and_a_perfect_model_that_everywhere():
    frame = patients([True] + [False] * 3, [1.0, 0.0, 0.0, 0.0])
    curve = decision_curve(frame, "p", draws=20).set_index("threshold")
    assert curve.loc[0.25, "all"] == pytest.approx(0)
    assert curve.loc[0.5, "all"] == pytest.approx(0.25 - 0.75)
    assert (curve["none"] == 0).all()
    for name in ("model", "low", "high"):
        assert curve[name].to_numpy() == pytest.approx(0.25)


def test_the_band_is_that_of_the_drawn_patients_with_all_their_rows():
    rng = np.random.default_rng(0)
    ids = [*range(20), *range(10)]  # ten patients have two rows
    labels = [each % 3 == 0 for each in ids]
    frame = patients(labels, np.round(rng.random(30), 2), ids)
    codes, strata = patient_strata(frame)
    weights = np.concatenate(list(patient_weights(strata, rows=30, draws=40, seed=3)))
    drawn = []
    for draw in weights.astype(int):
        rows = frame.loc[np.repeat(np.arange(30), draw[codes])]
        drawn.append(net_benefit(rows["label"] == "p", rows["score/p"]))
    curve = decision_curve(frame, "p", draws=40, seed=3)
    assert curve["low"].to_numpy() == pytest.approx(np.quantile(drawn, 0.025, axis=0))
    assert curve["high"].to_numpy() == pytest.approx(np.quantile(drawn, 0.975, axis=0))


def test_the_scaled_scores_have_a_curve_of_their_own():
    frame = patients([1, 0, 1, 0, 0], [0.95, 0.9, 0.6, 0.2, 0.01])
    curve = decision_curve(frame, "p", temperature=2.0, draws=5)
    expected = net_benefit(frame["label"] == "p", scaled(frame[["score/n", "score/p"]], 2.0)[:, 1])
    assert curve["scaled"].to_numpy() == pytest.approx(expected)
    assert not np.allclose(curve["scaled"], curve["model"])


def test_the_figure_draws_the_model_all_and_none():
    frame = patients([1, 0, 1, 0], [0.9, 0.4, 0.6, 0.2])
    curve = decision_curve(frame, "p", draws=5)
    axes = decision_figure(curve, "p").axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(drawn["model, 95 % band"]) == curve["model"].tolist()
    assert drawn["act on all"][49] == pytest.approx(0)  # half of them are positive
    assert len(drawn["act on all"]) == len(THRESHOLDS)
