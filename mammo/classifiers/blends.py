"""Blends of two training images by name, with the share of each class in what comes of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mammo.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

BLENDS = Registry("blend")
# images (B, C, H, W) and shares (B, K) to what they become, by torch's generator on the CPU
Blend = Callable[["Tensor", "Tensor"], tuple["Tensor", "Tensor"]]


@BLENDS.register("none")
def alone(images: "Tensor", shares: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Each image by itself."""
    return images, shares


@BLENDS.register("mixup")
def mixup(images: "Tensor", shares: "Tensor", *, mixup_alpha: float) -> tuple["Tensor", "Tensor"]:
    """The weighted mean of each image and another of the batch (Zhang et al. 2018).

    The weight is drawn for each image from Beta(mixup_alpha, mixup_alpha).
    """
    other = _others(images)
    weight = _weights(len(images), mixup_alpha).to(images)
    blended = images.lerp(images[other], 1 - weight[:, None, None, None])
    return blended, shares.lerp(shares[other], 1 - weight[:, None])


@BLENDS.register("cutmix")
def cutmix(images: "Tensor", shares: "Tensor", *, cutmix_alpha: float) -> tuple["Tensor", "Tensor"]:
    """A rectangle of each image replaced by that of another of the batch (Yun et al. 2019).

    The rectangle has the image's shape and an area of 1 - Beta(cutmix_alpha, cutmix_alpha) of it,
    about a point anywhere, cut at the edges; the other's share is the area that was pasted.
    """
    import torch

    from mammo.classifiers.operations import box

    count, (height, width) = len(images), images.shape[2:]
    other = _others(images)
    side = (1 - _weights(count, cutmix_alpha)).sqrt()
    high, wide = side * height, side * width
    top, left = torch.rand(count) * height - high / 2, torch.rand(count) * width - wide / 2
    edges = torch.stack([top, left, high, wide]).to(images)
    pasted = box(images, top=edges[0], left=edges[1], height=edges[2], width=edges[3])
    area = pasted.to(shares).mean(dim=(1, 2, 3))
    blended = torch.where(pasted, images[other], images)
    return blended, shares.lerp(shares[other], area[:, None])


@BLENDS.register("mixup_cutmix")
def mixup_or_cutmix(
    images: "Tensor", shares: "Tensor", *, mixup_alpha: float, cutmix_alpha: float
) -> tuple["Tensor", "Tensor"]:
    """One or the other for a whole batch, each as often."""
    import torch

    if torch.rand(()) < 0.5:
        return mixup(images, shares, mixup_alpha=mixup_alpha)
    return cutmix(images, shares, cutmix_alpha=cutmix_alpha)


def _others(images: "Tensor") -> "Tensor":
    """For each image the place (B,) of another one; of itself where it is alone."""
    import torch

    order = torch.randperm(len(images))
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # the next on a round through all
    return other.to(images.device)


def _weights(count: int, alpha: float) -> "Tensor":
    import torch

    return torch.distributions.Beta(alpha, alpha).sample((count,))
