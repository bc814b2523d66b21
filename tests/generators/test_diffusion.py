"""What the training of diffusion methods draws, drops and compares."""

import numpy as np
import pytest
import torch

from mammo.errors import ConfigError
from mammo.generators import METHODS, method
from mammo.generators.diffusion import Diffusion, epoch_order
from mammo.generators.network import build_network, describe
from mammo.generators.preview import grid

NETWORK = {"channels": "8,16", "attention": 0, "res_blocks": 1, "patch": 1}


def make(name="ddpm", *, label_dropout=0.0, gamma=0.0):
    network = build_network(describe(shape=(1, 8, 8), classes=2, **NETWORK), seed=0)
    generator = torch.Generator().manual_seed(1)
    for weight in network.parameters():  # blocks that start at zero would pass no gradient
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    module = Diffusion(
        network,
        method(name).process("v", 8, 0.5),
        lr=1e-3,
        label_dropout=label_dropout,
        min_snr_gamma=gamma,
    )
    module.logged = {}
    module.log = lambda key, value, **_: module.logged.update({key: value.item()})
    return module


def batch(rows):
    images = torch.linspace(0, 1, 64).view(1, 1, 8, 8).repeat(len(rows), 1, 1, 1)
    rows = torch.tensor(rows)
    return {"image": images * (rows.view(-1, 1, 1, 1) / 8), "label": rows % 2, "row": rows}


@pytest.mark.parametrize(("dropout", "trained"), [(0.0, [True, True, False]), (1.0, [0, 0, True])])
def test_a_dropped_label_trains_the_embedding_of_no_label_alone(dropout, trained):
    module = make(label_dropout=dropout)
    module.training_step(batch([0, 1, 2, 3]), 0).backward()
    moved = module.network.unet.class_embedding.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [bool(each) for each in trained]


@pytest.mark.parametrize("name", METHODS)
def test_the_validation_loss_of_a_row_is_the_same_in_any_epoch_and_company(name):
    module = make(name)
    losses = []
    for rows, seed in (([5], 0), ([5], 1), ([5, 5], 2)):
        torch.manual_seed(seed)
        module.validation_step(batch(rows), 0)
        losses.append(module.logged["val/loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_min_snr_weights_each_image_by_its_own_time():
    """Trap T4.b: a mean weight times a mean loss is another number."""
    module = make(gamma=5.0)
    plain = make()
    images = batch([1, 2, 3])["image"]
    labels, times = torch.tensor([0, 1, 0]), torch.tensor([10, 500, 900])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    weights = module.process.loss_weight(times, 5.0)
    expected = plain._losses(images, labels, noise, times) * weights
    torch.testing.assert_close(module._losses(images, labels, noise, times), expected)


def test_an_epoch_shows_every_image_at_most_once_and_whole_batches_only():
    one, two = (epoch_order(10, batch_size=4, seed=0, epoch=epoch) for epoch in (0, 1))
    assert len(one) == 8
    assert len(set(one.tolist())) == 8
    assert one.tolist() != two.tolist()
    assert sorted(epoch_order(3, batch_size=4, seed=0, epoch=0).tolist()) == [0, 1, 2]


def test_images_that_the_levels_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="10 x 8 px do not divide by 4"):
        describe(shape=(1, 10, 8), classes=2, channels="8,8", attention=0, res_blocks=1, patch=2)


@pytest.mark.parametrize("channels", ["", "a", "12", "0,8", "8;16"])
def test_channels_that_cannot_be_built_are_refused(channels):
    with pytest.raises(ConfigError, match=r"should be multiples of 8"):
        describe(shape=(1, 8, 8), classes=2, **{**NETWORK, "channels": channels})


def test_a_grid_keeps_its_window_and_its_order():
    images = np.stack([np.full((1, 2, 2), value) for value in (0.0, 0.5, 1.0)])
    picture = grid(images, columns=2)
    assert picture.shape == (6, 6)
    assert [picture[0, 0], picture[0, 4], picture[4, 0], picture[4, 4]] == [0, 128, 255, 128]
