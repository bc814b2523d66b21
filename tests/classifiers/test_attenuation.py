"""Attenuation is the log of the mean probability, and learns where labels cannot be trusted."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from mammo.classifiers.activations import ACTIVATIONS
from mammo.classifiers.attenuation import split
from mammo.classifiers.losses import make_loss

SETTINGS = {
    "label_smoothing": 0.0,
    "pos_weight": "none",
    "counts": [10, 10],
    "uncertainty": "attenuation",
    "uncertainty_draws": 10,
}


def attenuated(name, **changed):
    return make_loss(name, {**SETTINGS, **changed})


def head(mean, sd):
    """Outputs (1, 2 K) that say these means and standard deviations."""
    return torch.tensor([[*mean, *(2 * math.log(each) for each in sd)]])


def mean_of(function, mean, sd):
    """Mean of `function` over a normal variable, by quadrature."""
    found, _ = integrate.quad(
        lambda z: function(mean + sd * z) * stats.norm.pdf(z), -12, 12, epsabs=1e-12
    )
    return found


CASES = [(0.7, -1.1, 0.5, 2.0), (0.0, 0.0, 1.0, 1.0), (3.0, -3.0, 4.0, 0.1), (-2.0, 6.0, 3.0, 5.0)]


@pytest.mark.parametrize(("first", "second", "sd_first", "sd_second"), CASES)
def test_the_loss_of_the_softmax_is_the_log_of_its_mean(first, second, sd_first, sd_second):
    # of two classes: the sigmoid of a normal variable, the difference of the logits
    mean, sd = second - first, math.hypot(sd_first, sd_second)
    expected = -math.log(mean_of(special.expit, mean, sd))
    torch.manual_seed(0)
    made = attenuated("ce", uncertainty_draws=100_000)
    value = float(made.value(head([first, second], [sd_first, sd_second]), torch.tensor([1])))
    second_moment = mean_of(lambda z: special.expit(z) ** 2, mean, sd)
    p = math.exp(-expected)
    error = math.sqrt(second_moment - p**2) / p / math.sqrt(100_000)
    assert value == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize(("first", "second", "sd_first", "sd_second"), CASES)
def test_the_binary_loss_takes_one_sigmoid_of_each_draw(first, second, sd_first, sd_second):
    own = mean_of(special.expit, second, sd_second)
    rest = mean_of(lambda z: special.expit(-z), first, sd_first)
    torch.manual_seed(0)
    made = attenuated("bce", uncertainty_draws=100_000)
    value = float(made.value(head([first, second], [sd_first, sd_second]), torch.tensor([1])))
    assert value == pytest.approx(-(math.log(own) + math.log(rest)) / 2, abs=0.012)


def test_it_is_less_than_the_mean_of_the_losses():
    # Jensen: the mean of log(1 + exp z) over z of sd 5 is 2.05, the log of the mean is log 2
    torch.manual_seed(0)
    made = attenuated("bce", uncertainty_draws=100_000)
    value = float(made.value(head([0.0, 0.0], [5.0, 5.0]), torch.tensor([1])))
    assert value == pytest.approx(math.log(2), abs=0.01)
    assert mean_of(lambda z: np.logaddexp(0, z), 0, 5) > 2


@pytest.mark.parametrize("name", ["ce", "bce"])
@pytest.mark.parametrize("far", [60.0, 1e4])
def test_a_hopeless_logit_has_a_finite_loss_and_slope(name, far):
    outputs = torch.tensor([[far, -far, 0.0, 0.0], [far, -far, 80.0, -80.0]], requires_grad=True)
    value = attenuated(name).value(outputs, torch.tensor([1, 1]))
    value.backward()
    assert value.isfinite() and outputs.grad.isfinite().all()
    assert value > 0.4 * far


@pytest.mark.parametrize("name", ["ce", "bce"])
def test_without_spread_it_is_the_plain_loss(name):
    logits, labels = torch.tensor([[0.3, -1.0], [2.0, 0.5]]), torch.tensor([1, 0])
    outputs = torch.cat([logits, torch.full((2, 2), -50.0)], dim=1)
    plain = make_loss(name, {**SETTINGS, "uncertainty": "none"}).value(logits, labels)
    torch.testing.assert_close(attenuated(name).value(outputs, labels), plain, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["ce", "bce"])
def test_draws_follow_from_torchs_generator(name):
    outputs, labels = torch.randn(4, 4), torch.tensor([0, 1, 1, 0])
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(float(attenuated(name).value(outputs, labels)))
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(("first", "second", "sd_first", "sd_second"), CASES)
def test_scores_are_mean_probabilities(first, second, sd_first, sd_second):
    outputs = head([first, second], [sd_first, sd_second])
    expected = mean_of(special.expit, second - first, math.hypot(sd_first, sd_second))
    softmax = ACTIVATIONS["gaussian_softmax"](outputs)[0]
    assert float(softmax[1]) == pytest.approx(expected, abs=5e-3)
    own = [mean_of(special.expit, *each) for each in ((first, sd_first), (second, sd_second))]
    each = ACTIVATIONS["gaussian_one_vs_rest"](outputs)[0]
    assert float(each[1]) == pytest.approx(own[1] / sum(own), abs=5e-3)
    assert float(softmax.sum()) == pytest.approx(1, abs=1e-5)
    assert float(each.sum()) == pytest.approx(1, abs=1e-5)


def test_scores_of_three_classes_are_mean_probabilities():
    outputs = head([0.5, -0.5, 1.0], [1.0, 3.0, 0.5])
    rng = np.random.default_rng(0)
    drawn = rng.normal([0.5, -0.5, 1.0], [1.0, 3.0, 0.5], size=(400_000, 3))
    expected = special.softmax(drawn, axis=1).mean(axis=0)  # to 0.002, four standard errors
    found = ACTIVATIONS["gaussian_softmax"](outputs)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=7e-3)


def test_a_score_is_the_same_alone_among_others_and_again():
    outputs = torch.randn(2000, 6)
    for name in ("gaussian_softmax", "gaussian_one_vs_rest"):
        every, alone = ACTIVATIONS[name](outputs), ACTIVATIONS[name](outputs[1500:1501])
        torch.testing.assert_close(every[1500:1501], alone)
        before = torch.get_rng_state()
        assert torch.equal(ACTIVATIONS[name](outputs), every)
        assert torch.equal(torch.get_rng_state(), before)  # nothing else is moved


def test_uncertainty_is_the_spread_of_what_tells_the_classes_apart():
    outputs = head([0.1, 5.0, 3.0], [9.0, 3.0, 4.0])
    lead, top = ACTIVATIONS["gaussian_softmax"], ACTIVATIONS["gaussian_one_vs_rest"]
    told = lead.columns(outputs, "abc")
    assert told["uncertainty"] == pytest.approx(5)  # 3 and 4: of the first two
    assert top.columns(outputs, "abc")["uncertainty"] == pytest.approx(3)
    logits = [told[f"logit/{name}"] for name in "abc"]
    np.testing.assert_allclose(logits, [[0.1], [5], [3]], rtol=1e-6)
    assert sum(told[f"score/{name}"] for name in "abc") == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["ce", "bce"])
def test_sigma_is_higher_where_labels_were_flipped_at_random(name):
    """Half of the rows have a third of their labels flipped; only sigma can tell the halves apart.

    The mean is linear in a feature that both halves share, so it cannot be lowered for one.
    """
    place = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    half = torch.arange(2000) % 2 == 1
    medians = {}
    for share in (1 / 3, 0.0):
        chance = torch.rand(2000, generator=torch.Generator().manual_seed(1))
        labels = (place > 0).long() ^ (half & (chance < share)).long()
        outputs = _fitted(torch.stack([place, half.float()], dim=1), labels, name)
        told = ACTIVATIONS[attenuated(name).activation].columns(outputs, "ab")
        spread = told["uncertainty"]
        medians[share] = np.median(spread[half]), np.median(spread[~half])
        mean, _ = split(outputs)
        assert (mean.argmax(dim=1) == (place > 0)).float().mean() > 0.97  # flips moved no border
    assert medians[1 / 3][0] > 5 * medians[1 / 3][1]
    assert max(medians[0.0]) < 0.5  # it started at 1: what every label confirms is certain


def _fitted(features, labels, name):
    """Outputs (N, 4) of a linear head after 400 steps on all rows."""
    network = torch.nn.Linear(2, 4)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer, made = torch.optim.Adam(network.parameters(), lr=0.05), attenuated(name)
    torch.manual_seed(0)
    for _ in range(400):
        optimizer.zero_grad()
        made.value(network(features), labels).backward()
        optimizer.step()
    return network(features).detach()
