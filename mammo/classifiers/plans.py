"""Fine-tuning plans and optimizers by name: which weights move, how fast, by which rule."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mammo.registry import Registry

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from mammo.classifiers.backbone import Network

FINETUNES = Registry("finetune")
OPTIMIZERS = Registry("optimizer")
Group = dict[str, Any]


@FINETUNES.register("full")
def full(network: "Network", *, lr: float, backbone_lr_factor: float) -> list[Group]:
    """Everything moves, the backbone at `backbone_lr_factor` of the head's rate."""
    return [
        *groups(network.body.parameters(), lr * backbone_lr_factor),
        *groups(network.head.parameters(), lr),
    ]


@FINETUNES.register("head")
def head(network: "Network", *, lr: float, backbone_lr_factor: float) -> list[Group]:
    """Only the head moves; the backbone stays as it is, its normalisation included.

    The head starts at zero, where every class is as likely as any other: what a random start puts
    into hundreds of features for a few hundred images, so short a training never forgets.
    """
    network.body.requires_grad_(False)
    for parameter in network.head.parameters():
        parameter.data.zero_()
    return groups(network.head.parameters(), lr)


def groups(parameters: "Iterable[Parameter]", lr: float) -> list[Group]:
    """Two groups of one rate: matrices and kernels decay, biases and normalisation do not."""
    every = list(parameters)
    kinds = [
        {"params": [each for each in every if each.ndim > 1], "lr": lr},
        {"params": [each for each in every if each.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in kinds if group["params"]]


@OPTIMIZERS.register("adamw")
def adamw(groups: list[Group], *, weight_decay: float) -> "Optimizer":
    from torch.optim import AdamW

    return AdamW(groups, weight_decay=weight_decay)


@OPTIMIZERS.register("adam")
def adam(groups: list[Group], *, weight_decay: float) -> "Optimizer":
    from torch.optim import Adam

    return Adam(groups, weight_decay=weight_decay)


@OPTIMIZERS.register("sgd")
def sgd(groups: list[Group], *, weight_decay: float) -> "Optimizer":
    """Nesterov's momentum of 0.9."""
    from torch.optim import SGD

    return SGD(groups, weight_decay=weight_decay, momentum=0.9, nesterov=True)


def warmed_cosine(step: int, *, total: int, warmup: float) -> float:
    """Factor of the learning rate at `step` of `total`: linear up over the share `warmup`.

    Then down half a cosine, reaching 0 one step after the last.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    share = (step - rising) / max(1, total - rising)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
