"""Losses of a classifier by name, each with the activation that turns its logits into scores."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mammo.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = Registry("loss")
POS_WEIGHTS = ("balanced", "none", "sqrt")


@dataclass(frozen=True)
class Loss:
    """`value(logits (B, K), labels (B,))` is a scalar; `activation` names one of ACTIVATIONS."""

    value: Callable[["Tensor", "Tensor"], "Tensor"]
    activation: str


def make_loss(name: str, settings: Mapping[str, Any]) -> Loss:
    """The loss `name` with those of `settings` that it takes."""
    part = LOSSES[name]
    loss: Loss = part(**{each: settings[each] for each in inspect.signature(part).parameters})
    return loss


@LOSSES.register("ce")
def cross_entropy(*, label_smoothing: float) -> Loss:
    """Cross-entropy of the softmax, the true class asked for 1 - label_smoothing (1 - 1/K)."""

    def value(logits: "Tensor", labels: "Tensor") -> "Tensor":
        from torch.nn import functional

        return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)

    return Loss(value, "softmax")


@LOSSES.register("bce")
def binary_cross_entropy(*, counts: Sequence[int], pos_weight: str) -> Loss:
    """Binary cross-entropy of each class against the rest, averaged over the classes.

    `counts` are the images of each class among the training rows, and nowhere else: from them
    comes how much more a positive counts than a negative.
    """
    weights = positive_weights(counts, pos_weight)

    def value(logits: "Tensor", labels: "Tensor") -> "Tensor":
        from torch.nn import functional

        targets = functional.one_hot(labels, logits.shape[1]).float()
        weight = logits.new_tensor(weights).float()
        return functional.binary_cross_entropy_with_logits(
            logits.float(), targets, pos_weight=weight
        )

    return Loss(value, "one_vs_rest")


@LOSSES.register("focal")
def focal(*, focal_gamma: float, focal_alpha: float, positive: int) -> Loss:
    """Mean of -alpha (1 - p)^gamma log p, p the score of the true class (Lin et al. 2017, eq. 5).

    alpha is `focal_alpha` for the class with id `positive` and 1 - focal_alpha for the others;
    a focal_alpha of 0 weighs all classes the same.
    """

    def value(logits: "Tensor", labels: "Tensor") -> "Tensor":
        from torch.nn import functional

        logged = functional.log_softmax(logits.float(), dim=1).gather(1, labels[:, None])[:, 0]
        terms = -((1 - logged.exp()) ** focal_gamma) * logged
        if focal_alpha:
            is_positive = (labels == positive).float()
            terms = terms * (focal_alpha * is_positive + (1 - focal_alpha) * (1 - is_positive))
        return terms.mean()

    return Loss(value, "softmax")


def positive_weights(counts: Sequence[int], how: str) -> list[float]:
    """Weight of a positive of each class: negatives over positives, its square root, or 1."""
    total = sum(counts)
    power = {"balanced": 1.0, "sqrt": 0.5, "none": 0.0}[how]
    # a class without training images has no positive to weigh
    return [((total - count) / count) ** power if count else 1.0 for count in counts]


def softmax(logits: "Tensor") -> "Tensor":
    """Scores (B, K) that sum to 1."""
    return logits.float().softmax(dim=1)


def one_vs_rest(logits: "Tensor") -> "Tensor":
    """Each class's own probability, scaled so that a row (B, K) sums to 1."""
    each = logits.float().sigmoid()
    total: Tensor = each.sum(dim=1, keepdim=True)
    return each / total.clamp_min(1e-12)


ACTIVATIONS: dict[str, Callable[["Tensor"], "Tensor"]] = {
    "softmax": softmax,
    "one_vs_rest": one_vs_rest,
}
