"""A backbone takes any number of channels, its own weights, and nobody else's."""

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from mammo.classifiers.backbone import build
from mammo.classifiers.bodies import for_channels
from mammo.classifiers.plans import FINETUNES
from mammo.errors import CheckpointError, ConfigError

TIMM = "test_resnet"  # timm's own tiny network for tests


def trained(model_name=TIMM):
    """A state dict for three colours, as a hub would give it."""
    torch.manual_seed(1)
    if model_name == TIMM:
        return timm.create_model(TIMM, num_classes=7).state_dict()
    return models.get_model(model_name.removeprefix("torchvision/"), num_classes=7).state_dict()


@pytest.mark.parametrize("model_name", [TIMM, "torchvision/mobilenet_v3_small"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_grey_image_gives_the_features_of_its_colour_copy(model_name, channels):
    weights = trained(model_name)
    grey = torch.rand(2, 1, 64, 64)
    colour = build(model_name, shape=(3, 64, 64), classes=2, weights=weights).eval()
    few = build(model_name, shape=(channels, 64, 64), classes=2, weights=weights).eval()
    # one normalisation for all colours, so that the copies stay equal inside
    for network, count in ((colour, 3), (few, channels)):
        network.mean.copy_(torch.full((1, count, 1, 1), 0.45))
        network.sd.copy_(torch.full((1, count, 1, 1), 0.225))
    with torch.no_grad():
        expected = colour.features(grey.expand(-1, 3, -1, -1))
        found = few.features(grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_weights_are_those_of_the_file_and_the_head_is_new():
    weights = trained()
    network = build(TIMM, shape=(3, 64, 64), classes=2, weights=weights)
    own = network.body.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in own)
    assert network.head.weight.shape[0] == 2


def test_the_normalisation_is_that_of_the_pretrained_weights_and_lies_inside():
    weights = trained("torchvision/mobilenet_v3_small")
    network = build("torchvision/mobilenet_v3_small", shape=(3, 64, 64), classes=2, weights=weights)
    assert network.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert network.sd.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_one_channel_is_normalised_by_the_mean_over_the_colours():
    assert for_channels((0.1, 0.2, 0.6), 1) == pytest.approx([0.3])
    assert for_channels((0.1, 0.2, 0.6), 2) == pytest.approx([0.3, 0.3])
    assert for_channels((0.1, 0.2, 0.6), 3) == [0.1, 0.2, 0.6]


def test_the_same_seed_gives_the_same_network_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    first = build(TIMM, shape=(1, 64, 64), classes=2, seed=5).state_dict()
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))
    second = build(TIMM, shape=(1, 64, 64), classes=2, seed=5).state_dict()
    other = build(TIMM, shape=(1, 64, 64), classes=2, seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_weights_of_another_network_are_refused_in_one_line():
    with pytest.raises(CheckpointError, match=f"weights other.pth do not fit {TIMM}: it lacks"):
        build(
            TIMM,
            shape=(1, 64, 64),
            classes=2,
            weights=trained("torchvision/mobilenet_v3_small"),
            source="other.pth",
        )


def test_weights_of_another_width_are_refused():
    weights = trained()
    name = next(iter(weights))
    weights[name] = weights[name][:3]
    with pytest.raises(CheckpointError, match="is needed"):
        build(TIMM, shape=(1, 64, 64), classes=2, weights=weights, source="narrow.pth")


@pytest.mark.parametrize("name", ["resnet1", "torchvision/mobilenet_v9"])
def test_an_unknown_name_is_refused_with_names_near_it(name):
    with pytest.raises(ConfigError, match=f"unknown model_name '{name}' .*(resnet|mobilenet)"):
        build(name, shape=(1, 64, 64), classes=2)


def test_features_are_scaled_to_mean_0_and_sd_1():
    network = build(TIMM, shape=(1, 64, 64), classes=2)
    features = torch.tensor([[1.0, 10.0], [3.0, 30.0]]).repeat(1, network.head.in_features // 2)
    network.scale_features(features)
    nn.init.eye_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    logits = network.eval().classify(features).detach()
    # (1 - 2) / sd and (10 - 20) / sd with the sample sd of two values
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]) / 2**0.5
    torch.testing.assert_close(logits, expected)


def test_a_head_trained_alone_starts_with_every_class_as_likely() -> None:
    network = build("test_resnet", shape=(1, 32, 32), classes=3)
    FINETUNES["head"](network, lr=1.0)
    logits = network.eval()(torch.rand(2, 1, 32, 32))
    assert logits.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("head", ["linear", "batch_norm"])
def test_mixed_precision_makes_no_two_logits_equal(head):
    network = build(TIMM, shape=(1, 64, 64), classes=2, head=head).eval()
    features = torch.linspace(1, 1.05, 200)[:, None].repeat(1, len(network.feature_mean))
    expected = network.classify(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network.classify(features)
    assert torch.equal(found, expected)
    assert len(found[:, 0].unique()) == 200
