"""A sample depends on model, asking, guidance, sampler, steps and seed, and on nothing else."""

from dataclasses import replace

import pytest
import torch

from mammo.generators.artist import Asked, call_size
from mammo.generators.canvas import Pixels
from mammo.generators.modes import mode_of
from mammo.generators.sampling import Denoiser, DiffusionArtist
from mammo.generators.strategies import STRATEGIES, strategy
from mammo.generators.unet import build_unet, describe

strategy("ddpm")  # registers them all
SHAPE = (1, 16, 16)
SIZES = (3,)
KINDS = [(name, sampler) for name in STRATEGIES for sampler in strategy(name).SAMPLERS]
CPU = torch.device("cpu")


def random_network(*, control=0, labels=SIZES, patch=1):
    """A network whose last layer is not the zero it starts from."""
    described = describe(
        shape=SHAPE[1:],
        made=1,
        control=control,
        labels=labels,
        channels="8,16",
        attention=1,
        res_blocks=1,
        patch=patch,
    )
    network = build_unet(described, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return network


def artist(name="ddpm", network=None, mode="class"):
    made = strategy(name)(prediction="v", image_size=16, data_sd=0.5)
    return DiffusionArtist(network or random_network(), made, Pixels(mode_of(mode), SHAPE))


def asked(labels=(1,), seeds=(8,), **changes):
    return Asked(torch.tensor(labels)[:, None], list(seeds), **{"steps": 3, **changes})


@pytest.mark.parametrize(("name", "sampler"), KINDS)
def test_a_sample_depends_on_its_seed_alone_to_the_last_bit(name, sampler):
    how = {"sampler": sampler, "guidance": 2.0}
    drawing = artist(name)
    alone = drawing.draw(asked(**how))[0]
    beside = drawing.draw(asked((0, 1), (7, 8), **how))[1]
    far = drawing.draw(asked([2] * 10 + [1], [*range(100, 110), 8], **how))[10]
    assert torch.equal(alone, beside)
    assert torch.equal(alone, far)


def test_every_place_in_a_call_gives_the_same_bits():
    places = call_size(SHAPE, CPU)
    drawing = artist()
    alone = drawing.draw(asked(guidance=2.0))[0]
    for place in range(places):
        seeds = list(range(50, 50 + places))
        seeds[place] = 8
        drawn = drawing.draw(asked([1] * places, seeds, guidance=2.0))
        assert torch.equal(drawn[place], alone), place


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_another_seed_label_guidance_sampler_or_number_of_steps_gives_another_image(name):
    drawing, reference = artist(name), asked(guidance=2.0)
    image = drawing.draw(reference)
    for other in (
        asked(seeds=[9], guidance=2.0),
        asked([0], guidance=2.0),
        replace(reference, guidance=3.0),
        replace(reference, interval=(0.0, 0.5)),
        replace(reference, rescale=0.7),
        replace(reference, sampler="ddim"),
        replace(reference, steps=4),
    ):
        assert not torch.equal(drawing.draw(other), image), other


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_guidance_0_ignores_the_label_and_1_never_asks_for_no_label(name):
    network = random_network()
    drawing = artist(name, network)
    none = int(network.none[0])
    unconditional = drawing.draw(asked([none]))
    assert torch.equal(drawing.draw(asked([0], guidance=0.0)), unconditional)
    assert torch.equal(drawing.draw(asked([2], guidance=0.0)), unconditional)
    conditional = drawing.draw(asked(guidance=1.0))
    assert not torch.equal(conditional, unconditional)
    with torch.no_grad():
        network.unet.class_embedding.each[0].weight[none] = torch.nan
    assert torch.equal(drawing.draw(asked(guidance=1.0)), conditional)


def test_guidance_0_ignores_the_control_too():
    drawing = artist(network=random_network(control=1), mode="mask_to_image")
    masks = torch.zeros(3, 1, 16, 16)
    masks[0, :, 4:8] = 1
    masks[1, :, 9:] = -1
    one, other, none = (drawing.draw(asked(control=mask[None], guidance=0.0)) for mask in masks)
    assert torch.equal(one, other)
    assert torch.equal(one, none)
    told = [drawing.draw(asked(control=mask[None], guidance=1.0)) for mask in masks[:2]]
    assert not torch.equal(*told)


class Told(torch.nn.Module):
    """Sees in noise an image with a left and a right half, by the label alone; counts images."""

    SEEN = torch.tensor([[0.1, 0.5], [0.3, 0.9], [0.2, 0.0]])  # by label, the last for none

    def __init__(self):
        super().__init__()
        self.register_buffer("none", torch.tensor([2]))
        self.calls = []

    def forward(self, noisy, times, labels, control=None):
        self.calls.append(len(noisy))
        return self.SEEN[labels[:, 0]].view(-1, 1, 1, 2).expand_as(noisy)


class Output:
    """A strategy whose network says the clean image; a time is the share of noise."""

    def network_time(self, times):
        return times

    def noisiness(self, times):
        return times

    def predict(self, network, noisy, times):
        return network(noisy)

    def denoised(self, output, noisy, times):
        return output


def denoised(network=None, *, at=0.5, **how):
    """What a Denoiser makes of two images, told 0 and 1."""
    denoise = Denoiser(
        network or Told(),
        Output(),
        Pixels(mode_of("class"), (1, 1, 2)),
        asked((0, 1), (8, 9), **how),
        CPU,
    )
    return denoise(torch.zeros(2, 1, 1, 2), torch.full((2,), at)).view(2, 2)


def test_guidance_goes_from_no_label_past_the_label():
    none, told = Told.SEEN[2], Told.SEEN[:2]
    expected = (none + 3 * (told - none)).clamp(-1, 1)
    torch.testing.assert_close(denoised(guidance=3.0), expected)
    assert expected.flatten().tolist() == pytest.approx([-0.1, 1.0, 0.5, 1.0])


def test_both_halves_go_through_the_network_in_one_call_and_only_where_guidance_acts():
    for how, expected in (
        ({"guidance": 3.0}, [4]),
        ({"guidance": 1.0}, [2]),
        ({"guidance": 0.0}, [2]),
        ({"guidance": 3.0, "interval": (0.2, 0.5)}, [4]),
        ({"guidance": 3.0, "interval": (0.2, 0.4)}, [2]),
        ({"guidance": 3.0, "interval": (0.6, 1.0)}, [2]),
    ):
        network = Told()
        denoised(network, **how)
        assert network.calls == expected, how


def test_outside_its_interval_guidance_is_1():
    inside, plain = denoised(guidance=3.0), denoised(guidance=1.0)
    assert not torch.equal(inside, plain)
    for at, expected in ((0.125, plain), (0.25, inside), (0.75, inside), (0.875, plain)):
        found = denoised(at=at, guidance=3.0, interval=(0.25, 0.75))
        assert torch.equal(found, expected), at
    assert torch.equal(denoised(at=0.875, guidance=0.0, interval=(0.25, 0.75)), plain)


def test_rescaled_guidance_has_the_contrast_of_what_is_told():
    """Lin et al. 2024, eq. 15 and 16: of a share of 1 all of it, of 0.5 the middle.

    With guidance 1.5 image 0 goes from (0.1, 0.5) to (0.05, 0.75): 7/4 of the contrast.
    """
    for share, factor in ((1.0, 4 / 7), (0.5, (1 + 4 / 7) / 2), (0.0, 1.0)):
        found = denoised(guidance=1.5, rescale=share)[0]
        assert found.tolist() == pytest.approx([0.05 * factor, 0.75 * factor])


def test_a_network_without_labels_needs_none():
    drawing = artist(network=random_network(labels=(), patch=2), mode="unconditional")
    nothing = torch.zeros((1, 0), dtype=torch.long)
    one, other = (drawing.draw(Asked(nothing, [8], guidance=w, steps=3)) for w in (1.0, 3.0))
    assert torch.equal(one, other)


def test_a_network_without_labels_is_guided_by_its_control():
    drawing = artist(network=random_network(control=1, labels=()), mode="mask_to_image")
    mask = torch.ones(1, 1, 16, 16)
    one = Asked(torch.zeros((1, 0), dtype=torch.long), [8], mask, guidance=1.0, steps=3)
    told = drawing.draw(one)
    assert not torch.equal(drawing.draw(replace(one, guidance=0.0)), told)
    nothing = drawing.draw(replace(one, control=0 * mask))
    assert torch.equal(drawing.draw(replace(one, guidance=0.0)), nothing)


def test_drawing_leaves_the_network_as_it_was():
    network = random_network().train()
    artist(network=network).draw(asked())
    assert network.training


def test_samples_stay_in_their_range_whatever_the_network_says():
    network = random_network()
    with torch.no_grad():
        network.unet.out[-1].conv.bias.fill_(1e6)
    images = artist("rflow", network).draw(asked())
    assert ((images == 0) | (images == 1)).all()
