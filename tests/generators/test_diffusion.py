"""What the training of a diffusion draws, drops and compares, and the networks it is done with."""

import numpy as np
import pytest
import torch

from mammo.errors import ConfigError
from mammo.generators.canvas import Pixels
from mammo.generators.diffusion import Diffusion
from mammo.generators.material import epoch_order
from mammo.generators.modes import mode_of
from mammo.generators.preview import enlarged, grid
from mammo.generators.strategies import STRATEGIES, strategy
from mammo.generators.unet import build_unet, describe
from mammo.training.optimizing import Optimizing

strategy("ddpm")  # registers them all
SIZES = (2, 3)  # values of two labels
SIDE = 8
NETWORK = {"channels": "8,16", "attention": 0, "res_blocks": 1, "patch": 1}


class Trainer:
    """As much of Lightning's as a step of the training asks for."""

    def __init__(self, step=0):
        self.global_step = step


def network_of(*, control=0, labels=SIZES, **changes):
    described = describe(
        shape=(SIDE, SIDE), made=1, control=control, labels=labels, **{**NETWORK, **changes}
    )
    network = build_unet(described, seed=0)
    generator = torch.Generator().manual_seed(1)
    for weight in network.parameters():  # blocks that start at zero would pass no gradient
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return network


def make(name="ddpm", *, mode="class", label_dropout=0.0, gamma=0.0, seed=0, **changes):
    control = mode_of(mode).channels(1)[1]
    module = Diffusion(
        network_of(control=control, **changes),
        strategy(name)(
            prediction=strategy(name).PREDICTIONS[0],
            image_size=SIDE,
            data_sd=0.5,
        ),
        Pixels(mode_of(mode), (1, SIDE, SIDE)),
        optimizing=Optimizing(1e-3),
        label_dropout=label_dropout,
        min_snr_gamma=gamma,
        seed=seed,
    )
    module.logged = {}
    module.log = lambda key, value, **_: module.logged.update({key: value.item()})
    module._trainer = Trainer()
    return module


def batch(rows):
    ramp = torch.linspace(0, 1, SIDE * SIDE).view(1, 1, SIDE, SIDE).repeat(len(rows), 1, 1, 1)
    rows = torch.tensor(rows)
    image = ramp * (rows.view(-1, 1, 1, 1) / 8)
    labels = torch.stack([rows % 2, rows % 3], dim=1)
    return {
        "image": image,
        "mask": (image > 0.2).float(),
        "label": rows % 2,
        "labels": labels,
        "row": rows,
    }


def train_loss(module, given, step=0):
    module._trainer = Trainer(step)
    return module.training_step(given, 0).item()


def validation_loss(module, given):
    with torch.no_grad():
        module.validation_step(given, 0)
    return module.logged["val/loss"]


@pytest.mark.parametrize(
    ("dropout", "trained"),
    [
        (0.0, [[True, True, False], [True, True, True, False]]),
        (1.0, [[False, False, True], [False, False, False, True]]),
    ],
)
def test_what_is_dropped_trains_the_embeddings_of_not_told_alone(dropout, trained):
    module = make(label_dropout=dropout)
    module.training_step(batch([0, 1, 2, 3, 4, 5]), 0).backward()
    each = module.network.unet.class_embedding.each
    moved = [(embedding.weight.grad.abs().sum(1) > 0).tolist() for embedding in each]
    assert moved == trained


def test_a_class_is_learned_with_and_without_the_conditions_beside_it():
    """Of 600 rows at 0.2: 1 in 5 is told nothing, 4 in 25 the class alone, none a view alone."""
    module, seen = make(label_dropout=0.2), []
    network = module.network.forward
    module.network.forward = lambda x, t, labels, control: (
        seen.append(labels) or network(x, t, labels, control)
    )
    module.training_step(batch(list(range(600))), 0)
    classless, viewless = (torch.cat(seen) == module.network.none).T
    assert not (classless & ~viewless).any()
    assert (classless & viewless).float().mean() == pytest.approx(0.2, abs=0.05)
    assert (~classless & viewless).float().mean() == pytest.approx(0.16, abs=0.05)


def test_what_is_dropped_hides_the_control_too():
    """With all dropped, neither label nor mask moves the loss; with none, the mask does."""
    given = batch([1, 2, 3])
    other = {**given, "mask": 1 - given["mask"]}
    dropped, told = make(mode="mask_to_image", label_dropout=1.0), make(mode="mask_to_image")
    assert train_loss(dropped, given) == train_loss(dropped, other)
    assert train_loss(told, given) != train_loss(told, other)


def test_what_a_step_draws_for_a_row_depends_on_seed_step_and_row_alone():
    """Two processes with a row each have the losses that one process has with both rows."""
    module = make(label_dropout=0.5)
    both = train_loss(module, batch([3, 5]), step=7)
    torch.manual_seed(99)
    alone = [train_loss(module, batch([row]), step=7) for row in (3, 5)]
    assert both == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert train_loss(module, batch([3]), step=8) != alone[0]
    assert train_loss(make(label_dropout=0.5, seed=1), batch([3]), step=7) != alone[0]


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_the_validation_loss_of_a_row_is_the_same_in_any_epoch_and_company(name):
    module = make(name)
    losses = []
    for rows, seed, step in (([5], 0, 0), ([5], 1, 9), ([7], 2, 9), ([7, 5], 3, 30)):
        torch.manual_seed(seed)
        module._trainer = Trainer(step)
        losses.append(validation_loss(module, batch(rows)))
    five, again, seven, both = losses
    assert [again, both] == pytest.approx([five, (five + seven) / 2], rel=1e-5)


def test_min_snr_weights_each_image_by_its_own_time():
    """Trap T4.b: a mean weight times a mean loss is another number."""
    weighted, plain = make(gamma=5.0), make()
    given = batch([1, 2, 3])
    target, labels = weighted.canvas.target(given), given["labels"]
    times = torch.tensor([10, 500, 900])
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    weights = weighted.strategy.loss_weight(times, 5.0)
    assert len(set(weights.tolist())) == 3
    expected = plain._losses(target, labels, None, noise, times) * weights
    torch.testing.assert_close(weighted._losses(target, labels, None, noise, times), expected)


@pytest.mark.parametrize("mode", ["class", "mask_to_image"])
def test_trap_t3c_the_loss_depends_on_all_that_the_network_is_told(mode):
    given = batch([1, 2, 3, 4])
    module = make(mode=mode)
    reference = validation_loss(module, given)
    for column, size in enumerate(SIZES):
        labels = given["labels"].clone()
        labels[:, column] = (labels[:, column] + 1) % size
        assert validation_loss(module, {**given, "labels": labels}) != reference
    if mode == "mask_to_image":
        assert validation_loss(module, {**given, "mask": 1 - given["mask"]}) != reference


def test_an_epoch_shows_every_image_at_most_once_and_whole_batches_only():
    one, two = (epoch_order(10, batch_size=4, seed=0, epoch=epoch) for epoch in (0, 1))
    assert len(one) == 8
    assert len(set(one.tolist())) == 8
    assert one.tolist() != two.tolist()
    assert sorted(epoch_order(3, batch_size=4, seed=0, epoch=0).tolist()) == [0, 1, 2]


def test_images_that_the_levels_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="10 x 8 px do not divide by 4"):
        describe(
            shape=(10, 8),
            made=1,
            control=0,
            labels=SIZES,
            **{**NETWORK, "channels": "8,8", "patch": 2},
        )


@pytest.mark.parametrize("channels", ["", "a", "12", "0,8", "8;16"])
def test_channels_that_cannot_be_built_are_refused(channels):
    with pytest.raises(ConfigError, match=r"should be multiples of 8"):
        describe(shape=(8, 8), made=1, control=0, labels=SIZES, **{**NETWORK, "channels": channels})


@pytest.mark.parametrize(("side", "shown"), [(2, 128), (48, 96), (100, 100), (256, 256)])
def test_small_images_are_shown_large_pixel_by_pixel(side, shown):
    images = np.random.default_rng(0).random((3, 2, side, side))
    picture = enlarged(images)
    assert picture.shape == (3, 2, shown, shown)
    step = shown // side
    for offset in (0, step - 1):
        np.testing.assert_array_equal(picture[..., offset::step, offset::step], images)


def test_a_grid_keeps_its_window_and_its_order():
    images = np.stack([np.full((1, 2, 2), value) for value in (0.0, 0.5, 1.0)])
    picture = grid(images, columns=2)
    assert picture.shape == (6, 6)
    assert [picture[0, 0], picture[0, 4], picture[4, 0], picture[4, 4]] == [0, 128, 255, 128]
