"""Losses of a classifier by name, each with the activation that turns its outputs into scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mammo.classifiers.activations import ACTIVATIONS
from mammo.errors import ConfigError
from mammo.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = Registry("loss")
POS_WEIGHTS = ("balanced", "none", "sqrt")
UNCERTAINTIES = ("attenuation", "none")


@dataclass(frozen=True)
class Loss:
    """`of_shares(outputs, shares (B, K))` is a scalar; `activation` names one of ACTIVATIONS.

    Shares are what of an image belongs to each class; they sum to 1 and are 0 or 1 unless images
    were blended.
    """

    of_shares: Callable[["Tensor", "Tensor"], "Tensor"]
    activation: str

    @property
    def per_class(self) -> int:
        """Outputs that the head needs for each class."""
        return ACTIVATIONS[self.activation].per_class

    def value(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """The loss of `outputs` (B, per_class K) for labels (B,) or shares (B, K)."""
        from torch.nn import functional

        if targets.ndim == 1:
            targets = functional.one_hot(targets, outputs.shape[1] // self.per_class)
        return self.of_shares(outputs.float(), targets.float())


def make_loss(name: str, settings: Mapping[str, Any]) -> Loss:
    """The loss `name` with those of `settings` that it reads."""
    draws = settings["uncertainty_draws"] if settings.get("uncertainty") == "attenuation" else 0
    loss: Loss = LOSSES.bound(name, {**settings, "draws": draws})()
    return loss


def check_uncertainty(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse attenuation of a loss that is no likelihood, and draws of none."""
    if settings["uncertainty"] == "none":
        if settings["uncertainty_draws"] != defaults["uncertainty_draws"]:
            raise ConfigError(
                f"uncertainty_draws {settings['uncertainty_draws']} has no effect with uncertainty "
                "none; it goes with attenuation"
            )
    elif "draws" not in LOSSES.reads(settings["loss"]):
        able = ", ".join(name for name in sorted(LOSSES) if "draws" in LOSSES.reads(name))
        raise ConfigError(
            f"uncertainty {settings['uncertainty']!r} does not go with loss {settings['loss']!r}, "
            f"which is no likelihood; use loss {able}"
        )


@LOSSES.register("ce")
def cross_entropy(*, label_smoothing: float, draws: int) -> Loss:
    """Cross-entropy of the softmax, the true class asked for 1 - label_smoothing (1 - 1/K).

    With `draws` the head gives Gaussian logits, and the probability is its mean over as many.
    """

    def of_shares(outputs: "Tensor", shares: "Tensor") -> "Tensor":
        smoothed = shares * (1 - label_smoothing) + label_smoothing / shares.shape[1]
        return -(smoothed * _log_softmax(outputs, draws)).sum(dim=1).mean()

    return Loss(of_shares, "gaussian_softmax" if draws else "softmax")


@LOSSES.register("bce")
def binary_cross_entropy(*, counts: Sequence[int], pos_weight: str, draws: int) -> Loss:
    """Binary cross-entropy of each class against the rest, averaged over the classes.

    `counts` are the images of each class among the training rows, and nowhere else: from them
    comes how much more a positive counts than a negative. `draws` is as in `cross_entropy`.
    """
    weights = positive_weights(counts, pos_weight)

    def of_shares(outputs: "Tensor", shares: "Tensor") -> "Tensor":
        own, other = _log_sigmoids(outputs, draws)
        return -(outputs.new_tensor(weights) * shares * own + (1 - shares) * other).mean()

    return Loss(of_shares, "gaussian_one_vs_rest" if draws else "one_vs_rest")


@LOSSES.register("focal")
def focal(*, focal_gamma: float, focal_alpha: float, positive: int) -> Loss:
    """Mean of -alpha (1 - p)^gamma log p, p the score of the true class (Lin et al. 2017, eq. 5).

    alpha is `focal_alpha` for the class with id `positive` and 1 - focal_alpha for the others;
    a focal_alpha of 0 weighs all classes the same.
    """

    def of_shares(outputs: "Tensor", shares: "Tensor") -> "Tensor":
        logged = outputs.log_softmax(dim=1)
        # a gamma below 1 has no slope at a p of 1
        costs = -((-logged.expm1()).clamp_min(1e-12) ** focal_gamma) * logged
        if focal_alpha:
            alphas = outputs.new_full((shares.shape[1],), 1 - focal_alpha)
            alphas[positive] = focal_alpha
            costs = costs * alphas
        return (shares * costs).sum(dim=1).mean()

    return Loss(of_shares, "softmax")


@LOSSES.register("focal_counts")
def focal_counts(
    *, focal_gamma: float, pos_weight: str, counts: Sequence[int], positive: int
) -> Loss:
    """`focal` with alpha / (1 - alpha) = the weight w of a positive by the training counts.

    With pos_weight balanced, w = negatives / positives, alpha is 1 - prevalence.
    """
    weight = positive_weights(counts, pos_weight)[positive]
    return focal(focal_gamma=focal_gamma, focal_alpha=weight / (1 + weight), positive=positive)


@LOSSES.register("eql")
def equalization(*, counts: Sequence[int], eql_gamma: float, eql_tail: float) -> Loss:
    """Softmax equalization loss (Tan et al. 2020): rare classes are spared.

    -log(exp z_y / sum_k w_k exp z_k), where w_k is 0 for a rare class k other than the label's
    with the chance `eql_gamma`, by torch's generator on the CPU for each image and class, else 1.
    Rare is a share of the training images below `eql_tail`, or below 1 / K where that is 0.
    """
    least = (eql_tail or 1 / len(counts)) * sum(counts)
    rare = [count < least for count in counts]

    def of_shares(outputs: "Tensor", shares: "Tensor") -> "Tensor":
        import torch

        spared = (torch.rand(outputs.shape) < eql_gamma) & torch.tensor(rare)
        own = torch.eye(outputs.shape[1], dtype=torch.bool, device=outputs.device)
        left_out = spared.to(outputs.device)[:, None] & ~own  # (B, label, k)
        logits = outputs[:, None].masked_fill(left_out, -torch.inf)
        costs = logits.logsumexp(dim=2) - outputs
        return (shares * costs).sum(dim=1).mean()

    return Loss(of_shares, "softmax")


@LOSSES.register("eql_weights")
def equalization_by_weights(*, counts: Sequence[int], eql_gamma: float) -> Loss:
    """Cross-entropy whose class weights are drawn anew for each batch, as in MammographyAI.

    The weight of a class with the share f of the training images is 1 - f with the chance
    `eql_gamma`, else f, by torch's generator on the CPU; the mean is over the weights.
    """
    frequency = [count / sum(counts) for count in counts]

    def of_shares(outputs: "Tensor", shares: "Tensor") -> "Tensor":
        import torch

        share = torch.tensor(frequency)
        raised = torch.rand(len(share)) < eql_gamma
        weighed = shares * torch.where(raised, 1 - share, share).to(outputs)
        costs = -outputs.log_softmax(dim=1)
        return (weighed * costs).sum() / weighed.sum().clamp_min(1e-12)

    return Loss(of_shares, "softmax")


def positive_weights(counts: Sequence[int], how: str) -> list[float]:
    """Weight of a positive of each class: negatives over positives, its square root, or 1."""
    total = sum(counts)
    power = {"balanced": 1.0, "sqrt": 0.5, "none": 0.0}[how]
    # a class without training images has no positive to weigh
    return [((total - count) / count) ** power if count else 1.0 for count in counts]


def _log_softmax(outputs: "Tensor", draws: int) -> "Tensor":
    """Log-probabilities (B, K), of Gaussian logits where there are `draws`."""
    from mammo.classifiers import attenuation

    if draws:
        return attenuation.log_softmax(attenuation.drawn(outputs, draws))
    return outputs.log_softmax(dim=1)


def _log_sigmoids(outputs: "Tensor", draws: int) -> tuple["Tensor", "Tensor"]:
    """Log-probabilities (B, K) of each class and of its rest."""
    from torch.nn import functional

    from mammo.classifiers import attenuation

    if draws:
        logits = attenuation.drawn(outputs, draws)
        return attenuation.log_sigmoid(logits), attenuation.log_sigmoid(-logits)
    return functional.logsigmoid(outputs), functional.logsigmoid(-outputs)
