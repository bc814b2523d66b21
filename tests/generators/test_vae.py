"""The variational autoencoder: its bound, its units, and what it learns of data that are known."""

import math

import pytest
import tiny
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from mammo.data.dataset import Dataset
from mammo.generators.artist import Asked
from mammo.generators.canvas import Pixels
from mammo.generators.families import vae as family
from mammo.generators.material import gather
from mammo.generators.modes import mode_of
from mammo.generators.one_call import describe
from mammo.generators.vae import (
    Variational,
    build_decoder,
    build_encoder,
    divergence,
    squared_error,
)
from mammo.training.optimizing import Optimizing

SIDE = 8


class Trainer:
    """As much of Lightning's as a step of the training asks for."""

    def __init__(self, step=0):
        self.global_step = step


def make(*, labels=(2,), kl_weight=1.0, label_dropout=0.0, seed=0, encoder=None, decoder=None):
    network = describe(
        made=(1, SIDE, SIDE), control=0, labels=labels, channels="8,16", latent_dim=2
    )
    module = Variational(
        encoder or build_encoder(network, seed=1),
        decoder or build_decoder(network, seed=2),
        Pixels(mode_of("class"), (1, SIDE, SIDE)),
        labels=labels,
        optimizing=Optimizing(1e-3),
        kl_weight=kl_weight,
        label_dropout=label_dropout,
        seed=seed,
    )
    module.logged = {}
    module.log = lambda key, value, **_: module.logged.update({key: value.item()})
    module._trainer = Trainer()
    return module


def batch(rows, image):
    rows = torch.as_tensor(rows)
    return {"image": image, "row": rows, "labels": (rows % 2)[:, None]}


def test_the_divergence_is_that_of_torch_distributions():
    mean = torch.tensor([[0.0, 0.0], [1.5, -2.0]])
    log_variance = torch.tensor([[0.0, 0.0], [0.7, -3.0]])
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)
    assert expected[0] == 0


def test_the_reconstruction_error_is_in_units_of_images_from_0_to_1():
    """Black against white is 1 a pixel, whatever the range that the network works in."""
    black, white = torch.full((2, 3, 4, 4), -1.0), torch.full((2, 3, 4, 4), 1.0)
    assert squared_error(black, white).tolist() == [48.0, 48.0]


@pytest.mark.parametrize("kl_weight", [1.0, 0.2])
def test_with_the_exact_posterior_the_loss_is_the_evidence(kl_weight):
    """Pixels x = mean + w z + noise of variance s = kl_weight / 2: then all is known.

    The posterior of z is normal with variance 1 / (1 + w.w / s), and the bound is tight:
    loss = -kl_weight (log N(x; mean, w w' + s) + D / 2 log(2 pi s)).
    """
    s, pixels = kl_weight / 2, 4
    w, mean = torch.tensor([0.5, -0.3, 0.2, 0.4]), torch.tensor([0.5, 0.4, 0.6, 0.5])
    variance = 1 / (1 + float(w @ w) / s)

    class Posterior(torch.nn.Module):
        def forward(self, image, labels, control):
            x = (image.flatten(1) + 1) / 2
            at = variance * ((x - mean) @ w / s)
            return at[:, None], torch.full((len(x), 1), math.log(variance))

    class Linear(torch.nn.Module):
        def forward(self, latent, labels, control):
            return (2 * (mean + latent * w) - 1).view(-1, 1, 2, 2)

    module = make(kl_weight=kl_weight, encoder=Posterior(), decoder=Linear())
    x = torch.tensor([0.9, 0.1, 0.8, 0.6])
    module.validation_step(
        batch(torch.arange(4000), x.view(1, 1, 2, 2).expand(4000, -1, -1, -1)), 0
    )
    evidence = MultivariateNormal(mean, w[:, None] * w + s * torch.eye(pixels)).log_prob(x)
    expected = -kl_weight * (evidence + pixels / 2 * math.log(2 * math.pi * s))
    assert module.logged["val/loss"] == pytest.approx(float(expected), rel=0.02)
    parts = module.logged["val/reconstruction"] + kl_weight * module.logged["val/kl"]
    assert module.logged["val/loss"] == pytest.approx(parts, rel=1e-5)


@pytest.mark.doors
def test_it_learns_the_brightness_of_each_class_and_its_spread():
    """Flat images, each class normal around its level: samples have that mean and deviation.

    A linear decoder at its best leaves the pixels' own variance out (Tipping and Bishop 1999, eq.
    7): of 64 pixels with variance kl_weight / 2 each, that is kl_weight / 2 / 64 of a mean.
    """
    levels, deviation = torch.tensor([0.3, 0.7]), 0.1
    expected = math.sqrt(deviation**2 - 0.1 / 2 / SIDE**2)
    drawing = torch.Generator().manual_seed(0)
    module = make(kl_weight=0.1)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for step in range(400):
        rows = torch.arange(32) + 32 * step
        level = levels[rows % 2] + deviation * torch.randn(32, generator=drawing)
        module._trainer = Trainer(step)
        loss = module.training_step(batch(rows, level.view(-1, 1, 1, 1).expand(-1, 1, 8, 8)), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for label, level in enumerate(levels.tolist()):
        asked = Asked(torch.full((200, 1), label), range(200))
        means = module.artist().draw(asked).mean((1, 2, 3))
        assert float(means.mean()) == pytest.approx(level, abs=0.03)
        assert float(means.std()) == pytest.approx(expected, rel=0.2)


def test_what_a_step_draws_for_a_row_depends_on_seed_step_and_row_alone():
    """Two processes with a row each have the losses that one process has with both rows."""

    def loss(rows, *, step=7, seed=0):
        module = make(label_dropout=0.5, seed=seed)
        module._trainer = Trainer(step)
        torch.manual_seed(step + len(rows))
        image = torch.linspace(0, 1, 64).view(1, 1, 8, 8).repeat(len(rows), 1, 1, 1)
        return module.training_step(batch(rows, image), 0).item()

    alone = [loss([row]) for row in (3, 5)]
    assert loss([3, 5]) == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert loss([3], step=8) != alone[0]
    assert loss([3], seed=1) != alone[0]


def test_the_validation_loss_of_a_row_is_the_same_in_any_epoch_and_company():
    module, losses = make(), []
    for rows, step in (([5], 0), ([7], 4), ([7, 5], 9)):
        torch.manual_seed(step)
        module._trainer = Trainer(step)
        module.validation_step(batch(rows, torch.full((len(rows), 1, 8, 8), 0.3)), 0)
        losses.append(module.logged["val/loss"])
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-6)


@pytest.mark.parametrize(("asked", "used"), [(0.0, 1.0), (0.3, 0.3)])
def test_a_kl_weight_of_0_is_the_family_s_own(tmp_path, asked, used):
    """1, the bound itself: an autoencoder's own weight, a millionth, would be none at all."""
    settings = tiny.recipe("vae", "class", kl_weight=asked)
    tracked = tiny.run_with(tmp_path, data=tiny.write_scans(tmp_path).folder)
    material = gather(
        Dataset(tracked.inputs["data"][0].path), settings, folder=tmp_path, inputs=tracked.inputs
    )
    learner = family.learner(family.plan(material, settings), material, settings)
    learner.logged = {}
    learner.log = lambda key, value, **_: learner.logged.update({key: value.item()})
    learner.validation_step(next(iter(material.batches(4, seed=0)[1])), 0)
    found = learner.logged
    expected = found["val/reconstruction"] + used * found["val/kl"]
    assert found["val/kl"] > 0
    assert found["val/loss"] == pytest.approx(expected, rel=1e-5)
