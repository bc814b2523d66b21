"""A sample depends on model, label, guidance, sampler, steps and seed, and on nothing else."""

import pytest
import torch

from mammo.generators import METHODS, method
from mammo.generators.network import build_network, describe
from mammo.generators.sampling import _Denoiser, call_size, sample

SHAPE = (1, 16, 16)
KINDS = [(name, sampler) for name in METHODS for sampler in method(name).SAMPLERS]


def random_network(classes=3, patch=1):
    """A network whose last layer is not the zero it starts from."""
    network = build_network(
        describe(
            shape=SHAPE, classes=classes, channels="8,16", attention=1, res_blocks=1, patch=patch
        ),
        seed=0,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return network


def draw(name, labels, seeds, *, network=None, guidance=2.0, sampler="", steps=3):
    return sample(
        network or random_network(),
        method(name).process("v", 16, 0.5),
        shape=SHAPE,
        labels=labels,
        seeds=seeds,
        guidance=guidance,
        steps=steps,
        sampler=sampler or method(name).SAMPLERS[0],
    )


@pytest.mark.parametrize(("name", "sampler"), KINDS)
def test_a_sample_depends_on_its_seed_alone_to_the_last_bit(name, sampler):
    alone = draw(name, [1], [8], sampler=sampler)[0]
    beside = draw(name, [0, 1], [7, 8], sampler=sampler)[1]
    far = draw(name, [2] * 10 + [1], [*range(100, 110), 8], sampler=sampler)[10]
    assert torch.equal(alone, beside)
    assert torch.equal(alone, far)


def test_every_place_in_a_call_gives_the_same_bits():
    places = call_size(SHAPE, torch.device("cpu"))
    alone = draw("ddpm", [1], [8])[0]
    for place in range(places):
        seeds = list(range(50, 50 + places))
        seeds[place] = 8
        assert torch.equal(draw("ddpm", [1] * places, seeds)[place], alone), place


@pytest.mark.parametrize("name", METHODS)
def test_another_seed_label_or_guidance_gives_another_image(name):
    reference = draw(name, [1], [8])
    for labels, seeds, guidance in (([1], [9], 2.0), ([0], [8], 2.0), ([1], [8], 3.0)):
        assert not torch.equal(draw(name, labels, seeds, guidance=guidance), reference)


@pytest.mark.parametrize("name", METHODS)
def test_guidance_0_ignores_the_label_and_1_never_asks_for_no_label(name):
    assert torch.equal(draw(name, [0], [8], guidance=0), draw(name, [2], [8], guidance=0))
    network = random_network()
    before = draw(name, [1], [8], guidance=1, network=network)
    with torch.no_grad():
        network.unet.class_embedding.weight[network.null_label] = torch.nan
    assert torch.equal(draw(name, [1], [8], guidance=1, network=network), before)


def test_guidance_goes_from_no_label_past_the_label():
    class Told(torch.nn.Module):
        null_label = 2

        def forward(self, noisy, times, labels):
            return torch.tensor([0.1, 0.3, 0.2])[labels].view(-1, 1, 1, 1).expand_as(noisy)

    class Output:
        def network_time(self, times):
            return times

        def predict(self, network, noisy, times):
            return network(noisy)

        def denoised(self, output, noisy, times):
            return output

    denoise = _Denoiser(Told(), Output(), torch.tensor([0, 1]), 3.0)
    images = denoise(torch.zeros(2, 1, 1, 1), torch.zeros(2)).flatten().tolist()
    assert images == pytest.approx([0.2 + 3 * (0.1 - 0.2), 0.2 + 3 * (0.3 - 0.2)])


def test_a_network_without_labels_needs_none():
    network = random_network(classes=0, patch=2)
    one, other = (draw("ddpm", [label], [8], network=network, guidance=3.0) for label in (0, 1))
    assert torch.equal(one, other)


def test_samples_stay_in_their_range():
    with torch.no_grad():
        network = random_network()
        network.unet.out[-1].conv.bias.fill_(100.0)
    images = draw("rflow", [0], [0], network=network)
    assert images.min() == 0
    assert images.max() <= 1
