"""Fine-tuning plans by name: which weights move, from when on, and how fast."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.registry import Registry

if TYPE_CHECKING:
    from torch.nn import Parameter

    from mammo.classifiers.backbone import Network

FINETUNES = Registry("finetune")
OPTIMIZERS = ("adam", "adamw", "sgd")
LR_SCHEDULES = ("constant", "cosine", "cosine_plateau", "plateau", "step")
BLOCKS = ("layer", "stage")
# Parameters with their rate, and their depth: 0 is the head, 1 the block next to it
Group = dict[str, Any]
_RATES = ("backbone_lr_factor", "layer_decay", "block_lr", "block")
_FALLS = ("plateau", "cosine_plateau")
# what only some choices read: setting -> the setting that chooses, its choices
READ_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(_RATES, ("finetune", ("full", "partial", "gradual"))),
    "drop_path": ("finetune", ("full", "partial", "gradual")),  # a frozen backbone leaves out none
    "freeze_blocks": ("finetune", ("partial",)),
    **dict.fromkeys(
        (
            *("unfreeze_after", "unfreeze_patience", "unfreeze_drop", "unfreeze_cooldown"),
            "unfreeze_head_factor",
        ),
        ("finetune", ("gradual",)),
    ),
    "lr_drop": ("lr_schedule", ("step", *_FALLS)),
    "lr_every": ("lr_schedule", ("step",)),
    "lr_patience": ("lr_schedule", _FALLS),
}


def check_plan(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse settings that the chosen plan and schedule do not read, or that contradict it."""
    for name, (chooser, choices) in READ_BY.items():
        if settings[name] != defaults[name] and settings[chooser] not in choices:
            raise ConfigError(
                f"{name} {settings[name]!r} does not apply to {chooser} {settings[chooser]}; it "
                f"goes with {', '.join(choices)}"
            )
    rates_of(settings["block_lr"])
    if settings["block_lr"] and (
        settings["layer_decay"] != 1 or settings["backbone_lr_factor"] != 1
    ):
        raise ConfigError(
            f"block_lr {settings['block_lr']!r} gives each block its rate; leave out layer_decay "
            "and backbone_lr_factor"
        )
    if settings["layer_decay"] == 0:
        raise ConfigError("layer_decay 0 would stop the backbone; use finetune head")
    if settings["finetune"] == "partial" and not settings["freeze_blocks"]:
        raise ConfigError("finetune 'partial' freezes freeze_blocks blocks, which is 0; give 1 up")
    if settings["finetune"] == "gradual" and not (
        settings["unfreeze_patience"] or settings["unfreeze_drop"]
    ):
        raise ConfigError(
            "unfreeze_patience 0 and unfreeze_drop 0 never unfreeze a block; give one of them"
        )
    if settings["lr_schedule"] == "cosine_plateau" and settings["finetune"] != "gradual":
        raise ConfigError(
            "lr_schedule 'cosine_plateau' changes when the last block is unfrozen; use it with "
            "finetune gradual, or cosine or plateau"
        )


@FINETUNES.register("full")
def full(
    network: "Network",
    *,
    lr: float,
    backbone_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
    block_lr: str = "",
    block: str = "stage",
) -> list[Group]:
    """Everything moves, the backbone at `backbone_lr_factor` of the head's rate or block by block.

    The rate of the block at depth d is lr * backbone_lr_factor * layer_decay^d, or the number at
    place d of `block_lr`.
    """
    if layer_decay == 1 and not block_lr:
        body = groups(network.body.parameters(), lr * backbone_lr_factor, depth=1)
    else:
        rates = (lr * backbone_lr_factor, layer_decay, block_lr)
        body = _by_block(_from_head(network, block), *rates)
    return [*body, *groups(network.top.parameters(), lr)]


@FINETUNES.register("head")
def head(network: "Network", *, lr: float) -> list[Group]:
    """Only the head moves; the backbone stays as it is, its normalisation included.

    The head starts at zero, where every class is as likely as any other: what a random start puts
    into hundreds of features for a few hundred images, so short a training never forgets.
    """
    network.body.requires_grad_(False)
    network.frozen = True
    for parameter in network.last_layer.parameters():
        parameter.data.zero_()
    return groups(network.top.parameters(), lr)


@FINETUNES.register("partial")
def partial(
    network: "Network",
    *,
    lr: float,
    freeze_blocks: int,
    backbone_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
    block_lr: str = "",
    block: str = "stage",
) -> list[Group]:
    """The first `freeze_blocks` blocks stay as they are, their normalisation included.

    Rates are those of `full`; frozen blocks take none of `block_lr`.
    """
    found = _from_head(network, block)
    left = len(found) - freeze_blocks
    if left < 1:
        raise ConfigError(
            f"freeze_blocks {freeze_blocks} leaves no block to train: the backbone has "
            f"{len(found)} by {block}; give fewer, or use finetune head"
        )
    for parameter in (each for frozen in found[left:] for each in frozen):
        parameter.requires_grad_(False)
    body = _by_block(found[:left], lr * backbone_lr_factor, layer_decay, block_lr)
    return [*body, *groups(network.top.parameters(), lr)]


@FINETUNES.register("gradual")
def gradual(
    network: "Network",
    *,
    lr: float,
    backbone_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
    block_lr: str = "",
    block: str = "stage",
) -> list[Group]:
    """The head moves first; block by block follows (`unfreezing.Unfreezing`), the last one first.

    Batch normalisation of the backbone never moves: it holds statistics of far more images than
    there are here. Rates are those of `full`.
    """
    from mammo.classifiers.blocks import freeze_normalisation

    freeze_normalisation(network.body)
    found = [
        [each for each in block_ if each.requires_grad] for block_ in _from_head(network, block)
    ]
    network.body.requires_grad_(False)
    body = _by_block(found, lr * backbone_lr_factor, layer_decay, block_lr)
    return [*groups(network.top.parameters(), lr), *body]


def groups(parameters: "Iterable[Parameter]", lr: float, *, depth: int = 0) -> list[Group]:
    """Two groups of one rate: matrices and kernels decay, biases and normalisation do not."""
    every = list(parameters)
    kinds: list[Group] = [
        {"params": [each for each in every if each.ndim > 1]},
        {"params": [each for each in every if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return [{**group, "lr": lr, "depth": depth} for group in kinds if group["params"]]


def rates_of(block_lr: str) -> list[float]:
    """The numbers in `block_lr`, as "5e-5,1e-5"; none when it is empty."""
    try:
        rates = [float(each) for each in block_lr.split(",")] if block_lr.strip() else []
    except ValueError:
        rates = [0.0]
    if any(not 0 < rate < float("inf") for rate in rates):
        raise ConfigError(
            f"block_lr {block_lr!r} should be rates above 0 with commas, from the last block to "
            "the first, as 5e-5,1e-5,5e-6"
        )
    return rates


def _from_head(network: "Network", block: str) -> "list[list[Parameter]]":
    """Blocks of the backbone, the one next to the head first."""
    from mammo.classifiers.blocks import blocks

    return blocks(network.body, block)[::-1]


def _by_block(
    found: "Sequence[list[Parameter]]", lr: float, layer_decay: float, block_lr: str
) -> list[Group]:
    """Groups of `found`, blocks from the head on, each with its own rate."""
    rates = rates_of(block_lr) or [lr * layer_decay**depth for depth in range(1, len(found) + 1)]
    if len(rates) != len(found):
        raise ConfigError(
            f"block_lr {block_lr!r} has {len(rates)} rates, and {len(found)} blocks are trained; "
            "give one for each, from the last block to the first"
        )
    made = []
    for depth, (block, rate) in enumerate(zip(found, rates, strict=True), 1):
        made += groups(block, rate, depth=depth)
    return made
