"""The networks of diffusion: sizes as published, answers that depend on all they are told."""

import pytest
import torch
from test_diffusion import SIDE, batch, make, network_of, validation_loss

from mammo.generators.unet import NETWORKS, build_unet, describe

VARIANTS = [
    {"network": "unet"},
    {"network": "unet", "attention": 1},
    {"network": "unet", "label_input": "context", "labels": (3,)},
    {"network": "unet", "label_input": "context", "labels": (3,), "attention": 2},
    {"network": "minimal"},
    {"network": "minimal", "patch": 2},
]


@pytest.mark.parametrize("mode", ["class", "mask_to_image"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_trap_t3c_the_loss_of_every_network_depends_on_all_that_it_is_told(variant, mode):
    given = batch([1, 2, 3, 4])
    sizes = variant.get("labels", (2, 3))
    given["labels"] = given["labels"][:, -len(sizes) :]
    module = make(mode=mode, **variant)
    reference = validation_loss(module, given)
    for column, size in enumerate(sizes):
        for other in range(1, size + 1):  # the other classes, and not told
            labels = given["labels"].clone()
            labels[:, column] = (labels[:, column] + other) % (size + 1)
            assert validation_loss(module, {**given, "labels": labels}) != reference
    if mode == "mask_to_image":
        assert validation_loss(module, {**given, "mask": 1 - given["mask"]}) != reference


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_parameter_of_every_network_is_trained(variant):
    module = make(label_dropout=0.5, **variant)
    given = batch([0, 1, 2, 3, 4, 5])
    given["labels"] = given["labels"][:, -len(variant.get("labels", (2, 3))) :]
    module.training_step(given, 0).backward()
    idle = [name for name, weight in module.network.named_parameters() if weight.grad is None]
    assert idle == []


def test_the_context_is_the_class_s_number_and_minus_1_for_not_told():
    network = network_of(label_input="context", labels=(3,), attention=1)
    seen = []
    forward = network.unet.forward

    def spy(x, times, *, context):
        seen.append(context)
        return forward(x, times, context=context)

    network.unet.forward = spy
    labels = torch.tensor([[0], [2], [3]])
    network(torch.zeros(3, 1, SIDE, SIDE), torch.zeros(3), labels)
    assert seen[0].tolist() == [[[0.0]], [[2.0]], [[-1.0]]]


def test_a_network_without_labels_sees_none():
    for name in NETWORKS:
        network = network_of(network=name, labels=())
        answers = [
            network(torch.ones(1, 1, SIDE, SIDE), torch.zeros(1), torch.zeros(1, 0)) for _ in "12"
        ]
        assert torch.equal(*answers)


def published(**arguments):
    """MONAI's network with the arguments that a system gives it."""
    from monai.networks.nets import DiffusionModelUNet

    return DiffusionModelUNet(spatial_dims=2, **arguments)


@pytest.mark.parametrize(
    ("made", "control", "settings", "system"),
    [
        (
            1,
            0,
            {
                "labels": (2,),
                "channels": "64,128,256,512,512",
                "attention": 3,
                "res_blocks": 2,
                "head_channels": 64,
                "label_input": "context",
            },
            {
                "in_channels": 1,
                "out_channels": 1,
                "channels": (64, 128, 256, 512, 512),
                "attention_levels": (False, False, True, True, True),
                "num_res_blocks": 2,
                "num_head_channels": 64,
                "with_conditioning": True,
                "cross_attention_dim": 1,
            },
        ),
        (
            2,
            1,
            {
                "labels": (),
                "channels": "128,256,256",
                "attention": 2,
                "res_blocks": 1,
                "head_channels": 256,
            },
            {
                "in_channels": 3,
                "out_channels": 2,
                "channels": (128, 256, 256),
                "attention_levels": (False, True, True),
                "num_res_blocks": 1,
                "num_head_channels": 256,
            },
        ),
    ],
    ids=["u24", "medgen"],
)
def test_the_published_networks_are_ours_but_for_the_gain(made, control, settings, system):
    """Every weight has the system's shape; the last layer makes a gain beside each image."""
    described = describe(shape=(256, 256), made=made, control=control, patch=1, **settings)
    with torch.device("meta"):
        theirs = {name: tuple(each.shape) for name, each in published(**system).named_parameters()}
        ours = {
            name.removeprefix("unet."): tuple(each.shape)
            for name, each in NETWORKS["unet"](described).named_parameters()
        }
    differing = {name for name in ours | theirs if ours.get(name) != theirs.get(name)}
    assert differing == {"out.2.conv.weight", "out.2.conv.bias"}
    assert ours["out.2.conv.bias"] == (2 * made,)
    assert theirs["out.2.conv.bias"] == (made,)


def test_weights_are_a_function_of_the_seed():
    described = describe(
        shape=(8, 8),
        made=1,
        control=0,
        labels=(2,),
        channels="8,16",
        attention=0,
        res_blocks=1,
        patch=1,
        network="minimal",
    )
    torch.manual_seed(3)
    one = build_unet(described, seed=5).state_dict()
    torch.manual_seed(4)
    two, other = (build_unet(described, seed=seed).state_dict() for seed in (5, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
