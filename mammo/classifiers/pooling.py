"""Features of the images of a set as those of one: their mean, maximum or weighted mean."""

from typing import Any

import torch
from torch import Tensor, nn

HIDDEN = 128  # L, as in their experiments


class Pool(nn.Module):
    """Features (S, M, F) of sets, 0 where `held` (S, M) says that there is no image, to (S, F)."""

    def forward(self, each: Tensor, held: Tensor) -> Tensor:
        raise NotImplementedError

    def weights(self, each: Tensor, held: Tensor) -> Tensor | None:
        """How much each image counts (S, M), summing to 1 in a set; None where none is learned."""
        return None


class Mean(Pool):
    """The mean."""

    def forward(self, each: Tensor, held: Tensor) -> Tensor:
        return each.sum(dim=1) / held.sum(dim=1, keepdim=True)


class Max(Pool):
    """The maximum of each feature."""

    def forward(self, each: Tensor, held: Tensor) -> Tensor:
        return each.masked_fill(~held[..., None], -torch.inf).amax(dim=1)


class GatedAttention(Pool):
    """The mean by weights that follow from the features (Ilse et al. 2018, eq. 8 and 9)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.content = nn.Linear(features, HIDDEN, bias=False)  # V
        self.gate = nn.Linear(features, HIDDEN, bias=False)  # U
        self.weight = nn.Linear(HIDDEN, 1, bias=False)  # w

    def weights(self, each: Tensor, held: Tensor) -> Tensor:
        gated = self.content(each).tanh() * self.gate(each).sigmoid()
        logits = self.weight(gated)[..., 0].float()
        found: Tensor = logits.masked_fill(~held, -torch.inf).softmax(dim=1)
        return found

    def forward(self, each: Tensor, held: Tensor) -> Tensor:
        return (self.weights(each, held)[..., None] * each).sum(dim=1)


def laid(features: Tensor, held: Tensor) -> Tensor:
    """Features (n, F) that come set by set in a table (S, M, F), 0 where none is `held` (S, M)."""
    places = held.flatten().cumsum(dim=0).reshape(held.shape) - 1
    return features[places.clamp_min(0)].masked_fill(~held[..., None], 0)


def over_images(of_sets: Any, held: Tensor) -> Any:
    """What is said of sets (S, ...) for each image (n, ...) of them, set by set."""
    return of_sets[held.nonzero()[:, 0]]
