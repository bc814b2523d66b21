"""A backbone as blocks from the image to the head, so that plans can treat them one by one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from mammo.errors import ConfigError

Block = list[Parameter]


def blocks(body: nn.Module, kind: str) -> list[Block]:
    """All parameters of `body`, each in one block, from the image to the head.

    `kind` stage is the coarse division (the four stages of a ResNet after its stem), layer the
    fine one (its residual blocks). timm says for each of its networks what belongs together;
    torchvision's are divided by their children. What holds no kernel and no matrix (a last
    normalisation) joins the block before it.
    """
    found: list[Block] = []
    for each in _by_timm(body, kind) if hasattr(body, "group_matcher") else _by_child(body, kind):
        if found and all(parameter.ndim <= 1 for parameter in each):
            found[-1].extend(each)
        else:
            found.append(each)
    return found


def rest(body: nn.Module) -> None:
    """Put every part of `body` that has parameters and trains none into evaluation mode.

    Batch normalisation would go on learning its statistics in training mode, gradient or not.
    """
    for part in body.modules():
        own = list(part.parameters())
        if own and not any(each.requires_grad for each in own):
            part.eval()


def freeze_normalisation(body: nn.Module) -> None:
    """Take the gradient from all batch normalisation of `body`; see `rest` for its statistics."""
    for part in body.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.requires_grad_(False)


def check_single(body: nn.Module, shape: tuple[int, int, int], model_name: str) -> None:
    """Refuse a `body` that cannot train on one image of `shape` (C, H, W).

    Batch normalisation that learns needs two values of a channel, and a last map may hold one.
    """
    tried = copy.deepcopy(body).train()  # what it learns of an empty image is thrown away
    rest(tried)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            tried(torch.zeros(1, *shape))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"batch_size 1 has no variance for the batch normalisation of model_name "
            f"{model_name!r}, whose last map of {shape[1]} x {shape[2]} pixels is a single value; "
            "use 2 or more, or a larger image_size"
        ) from None


def _by_timm(body: nn.Module, kind: str) -> Iterator[Block]:
    from timm.models import group_parameters

    named = dict(body.named_parameters())
    matcher: Any = body.group_matcher
    numbered = group_parameters(body, matcher(coarse=kind == "stage"))
    for _, names in sorted(numbered.items()):
        yield [named[name] for name in names]


def _by_child(body: nn.Module, kind: str) -> Iterator[Block]:
    """Children with parameters; of a sequence its members, where it is all or layers are asked."""
    yield from filter(None, [list(body.parameters(recurse=False))])
    for name, child in body.named_children():
        opened = isinstance(child, nn.Sequential) and (kind == "layer" or name == "features")
        for each in child.children() if opened else (child,):
            yield from filter(None, [list(each.parameters())])
