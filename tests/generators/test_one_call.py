"""What networks share that make an image in one call: labels as numbers, sizes, their bits."""

import pytest
import torch

from mammo.errors import ConfigError
from mammo.generators import draws
from mammo.generators.artist import Asked, call_size
from mammo.generators.canvas import Pixels
from mammo.generators.gan_networks import build_maker
from mammo.generators.modes import mode_of
from mammo.generators.one_call import OneCallArtist, describe, one_hot
from mammo.generators.vae import build_decoder

SIZES = (2, 3)  # values of two labels
MAKERS = ("vae", "gan", "gan minimal")


def described(shape, *, channels="8,16", control=0, labels=SIZES):
    return describe(
        made=(1, *shape), control=control, labels=labels, channels=channels, latent_dim=4
    )


def maker(name, shape, **changes):
    """A network of family `name`, its weights far enough from zero for every image to differ."""
    if name == "vae":
        network = build_decoder(described(shape, **changes), seed=0)
    else:
        chosen = "minimal" if name.endswith("minimal") else "unet"
        network = build_maker({**described(shape, **changes), "network": chosen}, seed=0)
    drawing = torch.Generator().manual_seed(1)
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=drawing)
    return network


def artist(name, shape=(16, 16), mode="class", **changes):
    control = mode_of(mode).channels(1)[1]
    network = maker(name, shape, control=control, **changes)
    return OneCallArtist(network, Pixels(mode_of(mode), (1, *shape)))


def asked(seeds, label=0, control=None):
    return Asked(torch.tensor([[label, 1]] * len(seeds)), list(seeds), control)


def test_a_label_is_one_1_and_what_is_not_told_is_none():
    labels = torch.tensor([[0, 2], [1, 3], [2, 0]])  # 2 and 3 are "not told"
    expected = [[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert one_hot(labels, SIZES).tolist() == expected
    assert one_hot(torch.zeros(3, 0, dtype=torch.long), ()).shape == (3, 0)


def test_each_label_is_hidden_on_its_own_in_its_share_of_the_images():
    labels = torch.tensor([[1, 2]] * 2000)
    drawing = draws.generators(0, "hide", rows=torch.arange(2000))
    hidden = draws.hide(labels, SIZES, drawing, 0.25)
    gone = hidden == torch.tensor(SIZES)
    assert torch.equal(hidden[~gone], labels[~gone])
    shares = [gone[:, 0], gone[:, 1], gone.all(1), ~gone.any(1)]
    found = [float(each.float().mean()) for each in shares]
    assert found == pytest.approx([0.25, 0.25, 0.0625, 0.5625], abs=0.04)  # 4 standard errors


@pytest.mark.parametrize(("share", "expected"), [(0.0, [1, 2]), (1.0, [2, 3])])
def test_none_or_all_can_be_hidden(share, expected):
    drawing = draws.generators(0, "hide", rows=torch.arange(8))
    hidden = draws.hide(torch.tensor([[1, 2]] * 8), SIZES, drawing, share)
    assert hidden.tolist() == [expected] * 8


def test_copies_of_a_row_in_a_batch_draw_numbers_of_their_own():
    """A small class is shown so where classes are balanced; the first is as it would be alone."""
    alone, batch = (
        draws.normal(
            draws.generators(0, "noise", 4, rows=torch.tensor(rows)), (3,), torch.device("cpu")
        )
        for rows in ([7, 5], [5, 7, 5, 5])
    )
    assert torch.equal(batch[:2], alone.flip(0))
    assert len(batch.unique(dim=0)) == 4


@pytest.mark.parametrize("name", MAKERS)
def test_every_place_in_a_call_gives_the_same_bits(name):
    drawing = artist(name)
    places = call_size(drawing.shape, torch.device("cpu"))
    alone = drawing.draw(asked([8]))[0]
    for place in range(places):
        seeds = list(range(50, 50 + places))
        seeds[place] = 8
        assert torch.equal(drawing.draw(asked(seeds))[place], alone), place


@pytest.mark.parametrize("name", MAKERS)
def test_an_image_follows_its_seed_each_label_and_its_control(name):
    drawing = artist(name, mode="mask_to_image")
    square = torch.full((1, 1, 16, 16), -1.0)
    square[..., 4:8, 4:8] = 1
    reference = drawing.draw(asked([3], control=square))
    told = Asked(torch.tensor([[0, 2]]), [3], square)
    untold = Asked(torch.tensor([[0, 3]]), [3], square)
    others = [
        drawing.draw(each)
        for each in (
            asked([4], control=square),
            asked([3], label=1, control=square),
            asked([3], control=-square),
            told,
            untold,
        )
    ]
    for place, other in enumerate(others):
        assert not torch.equal(other, reference)
        assert all(not torch.equal(other, each) for each in others[:place])


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shape", [(4, 4), (12, 20), (32, 16)])
def test_trap_t0i_an_image_has_the_size_that_the_network_was_made_for(name, shape):
    """A square of 512 px that learns from squares of 64 px cannot be compared with them."""
    images = artist(name, shape).draw(asked([1, 2, 3]))
    assert images.shape == (3, 1, *shape)
    assert images.std(0).min() > 0  # to the last row and column it is made, and not padded


@pytest.mark.parametrize("name", MAKERS)
def test_images_stay_in_their_range(name):
    drawing = artist(name)
    for weight in drawing.network.parameters():
        weight.data *= 30
    images = drawing.draw(asked(range(4)))
    assert images.min() == 0
    assert images.max() == 1


def test_images_that_the_levels_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="images of 12 x 20 px do not divide by 8, as channels="):
        described((12, 20), channels="8,8,8")


def test_channels_that_cannot_be_built_are_refused():
    with pytest.raises(ConfigError, match="channels '12' should be multiples of 8"):
        described((8, 8), channels="12")
