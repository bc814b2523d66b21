"""What the outputs of a classifier's head mean: how they become logits, scores, uncertainty.

Scores are float64: in float32 all from log-odds of 17 on are 1, and who is surer is lost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """A head of `per_class` outputs for each of K classes: (B, per_class K) to scores (B, K)."""

    scores: Callable[["Tensor"], "Tensor"]  # that sum to 1
    per_class: int = 1
    spread: Callable[["Tensor"], "Tensor"] | None = None  # (B,), in logits

    def __call__(self, outputs: "Tensor") -> "Tensor":
        return self.scores(outputs)

    def columns(self, outputs: "Tensor", names: Sequence[str]) -> dict[str, "NDArray[np.float64]"]:
        """`score/<class>` and `logit/<class>` (B,) of outputs on the CPU, and any `uncertainty`.

        A Gaussian's logit is its mean; uncertainty is the standard deviation of what the classes
        are told apart by, in logits.
        """
        parts = [("score", self.scores(outputs)), ("logit", outputs[:, : len(names)])]
        found = {
            f"{kind}/{name}": values[:, number]
            for kind, values in parts
            for number, name in enumerate(names)
        }
        if self.spread is not None:
            found["uncertainty"] = self.spread(outputs)
        return {name: values.double().numpy() for name, values in found.items()}


def softmax(logits: "Tensor") -> "Tensor":
    """Scores (B, K) that sum to 1."""
    return logits.double().softmax(dim=1)


def one_vs_rest(logits: "Tensor") -> "Tensor":
    """Each class's own probability, scaled so that a row (B, K) sums to 1."""
    return _summing_to_one(logits.double().sigmoid())


def gaussian_softmax(outputs: "Tensor") -> "Tensor":
    """Mean of the softmax over Gaussian logits."""
    from mammo.classifiers.attenuation import mean_softmax

    return mean_softmax(outputs)


def gaussian_one_vs_rest(outputs: "Tensor") -> "Tensor":
    """Each class's mean probability over its Gaussian logit, scaled so that a row sums to 1."""
    from mammo.classifiers.attenuation import mean_sigmoid

    return _summing_to_one(mean_sigmoid(outputs))


def lead_sd(outputs: "Tensor") -> "Tensor":
    """Of the softmax only differences of logits matter: the sd (B,) of the first two's."""
    from mammo.classifiers import attenuation

    return attenuation.lead_sd(outputs)


def top_sd(outputs: "Tensor") -> "Tensor":
    """The sd (B,) of the highest logit, each class being judged by its own."""
    from mammo.classifiers import attenuation

    return attenuation.top_sd(outputs)


def _summing_to_one(each: "Tensor") -> "Tensor":
    total: Tensor = each.sum(dim=1, keepdim=True)
    return each / total.clamp_min(1e-300)


ACTIVATIONS: dict[str, Activation] = {
    "softmax": Activation(softmax),
    "one_vs_rest": Activation(one_vs_rest),
    "gaussian_softmax": Activation(gaussian_softmax, per_class=2, spread=lead_sd),
    "gaussian_one_vs_rest": Activation(gaussian_one_vs_rest, per_class=2, spread=top_sd),
}
