"""Losses have the values of their formulas, and their activations the scores that go with them."""

import math

import pytest
import torch

from mammo.classifiers.losses import (
    ACTIVATIONS,
    LOSSES,
    make_loss,
    positive_weights,
)

SETTINGS = {
    "label_smoothing": 0.0,
    "focal_gamma": 2.0,
    "focal_alpha": 0.25,
    "pos_weight": "balanced",
    "counts": [30, 10],
    "positive": 1,
}


def loss(name, logits, labels, **changed):
    made = make_loss(name, {**SETTINGS, **changed})
    return float(made.value(torch.tensor(logits), torch.tensor(labels)))


def test_cross_entropy_of_even_scores_is_log_2():
    assert loss("ce", [[0.0, 0.0]], [1]) == pytest.approx(math.log(2))


def test_label_smoothing_spreads_its_share_over_all_classes():
    # targets 0.9 and 0.1 against scores 1 - 1/4 and 1/4 (logits log 3 and 0)
    expected = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    smoothed = loss("ce", [[math.log(3), 0.0]], [0], label_smoothing=0.2)
    assert smoothed == pytest.approx(expected)


def test_a_positive_weighs_as_many_times_more_as_there_are_more_negatives():
    # class 0: a negative, once; class 1: a positive, 30 / 10 times
    assert loss("bce", [[0.0, 0.0]], [1]) == pytest.approx((1 + 3) / 2 * math.log(2))


def test_the_positive_weight_can_be_damped_or_left_out():
    assert positive_weights([80, 20], "balanced") == [0.25, 4.0]
    assert positive_weights([80, 20], "sqrt") == [0.5, 2.0]
    assert positive_weights([80, 20], "none") == [1.0, 1.0]


def test_focal_loss_without_gamma_and_alpha_is_cross_entropy():
    logits, labels = [[0.3, -1.0], [0.2, 0.9]], [0, 0]
    plain = loss("focal", logits, labels, focal_gamma=0.0, focal_alpha=0.0)
    assert plain == pytest.approx(loss("ce", logits, labels))


def test_focal_loss_has_the_value_of_its_formula():
    # p = 3/4 for the positive class: 1/4 (alpha) x (1/4)^2 x log 4/3
    expected = 0.25 * 0.0625 * math.log(4 / 3)
    assert loss("focal", [[0.0, math.log(3)]], [1]) == pytest.approx(expected)
    # the same for a negative counts 3/4
    assert loss("focal", [[math.log(3), 0.0]], [0]) == pytest.approx(3 * expected)


def test_one_against_the_rest_scales_the_probabilities_to_sum_to_one():
    # sigmoids 1/2, 3/4 and 3/4
    scores = ACTIVATIONS["one_vs_rest"](torch.tensor([[0.0, math.log(3), math.log(3)]]))
    torch.testing.assert_close(scores, torch.tensor([[0.25, 0.375, 0.375]]))


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_confident_right_answer_costs_nothing_and_a_wrong_one_much(name):
    right, wrong = loss(name, [[-20.0, 20.0]], [1]), loss(name, [[20.0, -20.0]], [1])
    assert right == pytest.approx(0, abs=1e-6)
    assert wrong > 5


@pytest.mark.parametrize("name", list(LOSSES))
def test_scores_follow_the_logits(name):
    made = make_loss(name, SETTINGS)
    scores = ACTIVATIONS[made.activation](torch.tensor([[0.0, 4.0], [4.0, 0.0]]))
    assert scores[0, 1] > 0.6 and scores[1, 1] < 0.4
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))
