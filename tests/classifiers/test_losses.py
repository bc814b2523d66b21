"""Losses have the values of their formulas, and their activations the scores that go with them."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from mammo.classifiers.activations import ACTIVATIONS
from mammo.classifiers.losses import LOSSES, check_uncertainty, make_loss, positive_weights
from mammo.errors import ConfigError

SETTINGS = {
    "label_smoothing": 0.0,
    "focal_gamma": 2.0,
    "focal_alpha": 0.25,
    "pos_weight": "balanced",
    "eql_gamma": 0.9,
    "eql_tail": 0.0,
    "uncertainty": "none",
    "uncertainty_draws": 10,
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
    torch.testing.assert_close(scores, torch.tensor([[0.25, 0.375, 0.375]]).double())


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_of_two_sure_scores_the_surer_one_is_higher(name):
    means = torch.tensor([[-10.0, 10.0], [-12.0, 12.0]])  # in float32 both scores are 1
    certain = torch.full((2, 2 * (ACTIVATIONS[name].per_class - 1)), -10.0)
    sure, surer = ACTIVATIONS[name](torch.cat([means, certain], dim=1))[:, 1].tolist()
    assert sure < surer < 1


def test_an_image_of_no_class_still_has_scores_that_sum_to_one():
    # far below 0 a sigmoid is the exponential: e^-50 / (e^-50 + e^-60)
    scores = ACTIVATIONS["one_vs_rest"](torch.tensor([[-60.0, -50.0]]))[0].tolist()
    assert scores == pytest.approx([1 / (1 + math.exp(10)), 1 / (1 + math.exp(-10))])


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_confident_right_answer_costs_nothing_and_a_wrong_one_much(name):
    torch.manual_seed(0)
    # no class is rare: equalization spares none
    right, wrong = (
        loss(name, [logits], [1], counts=[20, 20]) for logits in ([-20.0, 20.0], [20.0, -20.0])
    )
    assert right == pytest.approx(0, abs=1e-6)
    assert wrong > 5


@pytest.mark.parametrize("name", list(LOSSES))
def test_scores_follow_the_logits(name):
    made = make_loss(name, SETTINGS)
    scores = ACTIVATIONS[made.activation](torch.tensor([[0.0, 4.0], [4.0, 0.0]]))
    assert scores[0, 1] > 0.6 and scores[1, 1] < 0.4
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2).double())


@pytest.mark.parametrize("uncertainty", ["none", "attenuation"])
@pytest.mark.parametrize("name", ["ce", "bce", "focal", "focal_counts", "eql"])
def test_an_image_blended_of_two_costs_its_shares_of_both(name, uncertainty):
    if uncertainty != "none" and name not in ("ce", "bce"):
        return
    made = make_loss(name, {**SETTINGS, "uncertainty": uncertainty})
    torch.manual_seed(1)
    outputs = torch.randn(1, 2 * made.per_class)
    values = []
    for shares in ([1.0, 0.0], [0.0, 1.0], [0.3, 0.7]):
        torch.manual_seed(2)
        values.append(float(made.value(outputs, torch.tensor([shares]))))
    assert values[2] == pytest.approx(0.3 * values[0] + 0.7 * values[1], rel=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
def test_labels_are_shares_of_one_class(name):
    made, logits = make_loss(name, SETTINGS), torch.randn(6, 2)
    labels = torch.tensor([0, 1, 1, 0, 1, 1])
    values = []
    for targets in (labels, functional.one_hot(labels).float()):
        torch.manual_seed(3)
        values.append(made.value(logits, targets))
    assert torch.equal(*values)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.9, 0.5), (0.5, 0.0)])
def test_focal_loss_of_two_classes_is_torchvisions_of_their_log_odds(alpha, gamma):
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(64, 2), torch.randint(2, (64,))
    made = make_loss("focal", {**SETTINGS, "focal_alpha": alpha, "focal_gamma": gamma})
    reference = sigmoid_focal_loss(
        logits[:, 1] - logits[:, 0], labels.float(), alpha=alpha, gamma=gamma, reduction="mean"
    )
    torch.testing.assert_close(made.value(logits, labels), reference)


@pytest.mark.parametrize(
    ("pos_weight", "alpha"),
    [
        ("balanced", 0.9),  # 1 - prevalence
        ("sqrt", 0.75),  # a weight of root 9 = 3 against 1
        ("none", 0.5),
    ],
)
def test_focal_loss_takes_its_alpha_from_the_training_counts(pos_weight, alpha):
    torch.manual_seed(0)
    logits, labels = torch.randn(32, 2), torch.randint(2, (32,))
    changed = {**SETTINGS, "counts": [90, 10], "pos_weight": pos_weight}
    by_counts = make_loss("focal_counts", changed).value(logits, labels)
    given = make_loss("focal", {**SETTINGS, "focal_alpha": alpha}).value(logits, labels)
    torch.testing.assert_close(by_counts, given)


def test_focal_loss_keeps_its_slope_where_an_answer_is_certain():
    logits = torch.tensor([[0.0, 200.0]], requires_grad=True)
    make_loss("focal", {**SETTINGS, "focal_gamma": 0.5}).value(logits, torch.tensor([1])).backward()
    assert logits.grad.isfinite().all()


# logits log 2, log 3 and log 5: exp of them 2, 3 and 5
LOGITS = [[math.log(2), math.log(3), math.log(5)]]


@pytest.mark.parametrize(
    ("label", "share"),
    [
        (0, 2 / 2),  # both rare classes, 1 and 2, are left out of the sum
        (1, 3 / (2 + 3)),  # class 2 is left out, class 1 is the label's own
        (2, 5 / (2 + 5)),
    ],
)
def test_equalization_leaves_rare_classes_out_of_the_sum_of_others_images(label, share):
    counts = {"counts": [60, 25, 15]}  # a third would be 33
    assert loss("eql", LOGITS, [label], eql_gamma=1.0, **counts) == pytest.approx(
        -math.log(share), abs=1e-6
    )


def test_which_classes_are_rare_can_be_said():
    counts = {"counts": [60, 25, 15], "eql_gamma": 1.0}
    assert loss("eql", LOGITS, [0], eql_tail=0.2, **counts) == pytest.approx(-math.log(2 / 5))
    # 15 of 100 is not below 0.15: nothing is spared
    assert loss("eql", LOGITS, [0], eql_tail=0.15, **counts) == pytest.approx(-math.log(2 / 10))


def test_equalization_without_chance_is_cross_entropy():
    logits, labels = [[0.3, -1.0], [0.2, 0.9]], [0, 1]
    assert loss("eql", logits, labels, eql_gamma=0.0) == pytest.approx(loss("ce", logits, labels))


def test_equalization_spares_by_its_chance():
    torch.manual_seed(0)
    made = make_loss("eql", {**SETTINGS, "counts": [90, 10], "eql_gamma": 0.7})
    value = float(made.value(torch.zeros(20_000, 2), torch.zeros(20_000, dtype=torch.int64)))
    # an even score costs log 2 where class 1 is not spared (0.3 +- 0.0032), else nothing
    assert value / math.log(2) == pytest.approx(0.3, abs=4 * 0.0033)


def test_equalization_by_weights_has_the_value_of_its_formula():
    # shares 3/4 and 1/4; a chance of 1 gives class 0 the weight 1/4 and class 1 the weight 3/4
    logits, labels = [[0.0, 0.0], [0.0, math.log(3)]], [0, 1]
    costs = math.log(2), math.log(4 / 3)
    raised = loss("eql_weights", logits, labels, eql_gamma=1.0)
    assert raised == pytest.approx(0.25 * costs[0] + 0.75 * costs[1])
    kept = loss("eql_weights", logits, labels, eql_gamma=0.0)
    assert kept == pytest.approx(0.75 * costs[0] + 0.25 * costs[1])


@pytest.mark.parametrize("name", ["eql", "eql_weights"])
def test_what_a_loss_draws_follows_from_torchs_generator(name):
    made, logits = make_loss(name, {**SETTINGS, "eql_gamma": 0.5}), torch.randn(16, 2)
    labels, values = torch.zeros(16, dtype=torch.int64), []
    labels[0] = 1
    for seed in (1, 1, 2, 3, 4, 5):
        torch.manual_seed(seed)
        values.append(float(made.value(logits, labels)))
    assert values[0] == values[1] and len(set(values)) > 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(32, 4), torch.randint(4, (32,))
    made = make_loss("ce", {**SETTINGS, "label_smoothing": smoothing})
    reference = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(made.value(logits, labels), reference)


def test_binary_cross_entropy_is_torchs():
    torch.manual_seed(0)
    logits, labels = torch.randn(32, 3), torch.randint(3, (32,))
    made = make_loss("bce", {**SETTINGS, "counts": [50, 30, 20]})
    reference = functional.binary_cross_entropy_with_logits(
        logits,
        functional.one_hot(labels, 3).float(),
        pos_weight=torch.tensor(np.array([1, 70 / 30, 4]), dtype=torch.float32),
    )
    torch.testing.assert_close(made.value(logits, labels), reference)


@pytest.mark.parametrize("name", ["eql", "eql_weights", "focal", "focal_counts"])
def test_attenuation_of_a_loss_that_is_no_likelihood_is_refused(name):
    settings = {**SETTINGS, "loss": name, "uncertainty": "attenuation"}
    line = f"uncertainty 'attenuation' does not go with loss '{name}', .*; use loss bce, ce"
    with pytest.raises(ConfigError, match=line):
        check_uncertainty(settings, {"uncertainty_draws": 10})


def test_draws_of_no_uncertainty_are_refused():
    settings = {**SETTINGS, "loss": "ce", "uncertainty": "none", "uncertainty_draws": 7}
    check_uncertainty(settings, {"uncertainty_draws": 7})
    with pytest.raises(ConfigError, match="uncertainty_draws 7 has no effect with uncertainty"):
        check_uncertainty(settings, {"uncertainty_draws": 10})
