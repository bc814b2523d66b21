"""Learned loss attenuation: a Gaussian in place of each logit (Kendall and Gal 2017, eq. 12).

A head gives two numbers a class: the mean of the logit and the logarithm of its variance. What is
likely is the mean over the Gaussian of the probability, so a large variance pulls it towards
chance and spares the network the loss of a label that it cannot explain. The mean of the losses
would do the reverse: by Jensen's inequality it is least where the variance is 0.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOG_VARIANCE = 10.0  # farthest from 0, each way: standard deviations of 0.007 to 148
_ROWS = 1024  # at a time: each is computed at all points
POINTS = 256  # of the normal distribution, and as many mirrored, by which a mean is taken


def split(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, K) of the logits of `outputs` (B, 2 K)."""
    mean, log_variance = outputs.float().chunk(2, dim=1)
    return mean, (0.5 * log_variance.clamp(-LOG_VARIANCE, LOG_VARIANCE)).exp()


def drawn(outputs: Tensor, draws: int) -> Tensor:
    """`draws` logits (T, B, K) for each of `outputs` (B, 2 K), by torch's generator on the CPU."""
    mean, sd = split(outputs)
    return mean + sd * torch.randn(draws, *mean.shape).to(mean)


def log_softmax(logits: Tensor) -> Tensor:
    """Log of the mean of the softmax of `logits` (T, B, K) over the T draws; (B, K)."""
    return _log_mean(functional.log_softmax(logits, dim=2))


def log_sigmoid(logits: Tensor) -> Tensor:
    """Log of the mean of the sigmoid of `logits` (T, B, K) over the T draws; (B, K)."""
    return _log_mean(functional.logsigmoid(logits))


def mean_softmax(outputs: Tensor) -> Tensor:
    """Mean over the Gaussian of the softmax; (B, K). The same for the same row, always."""
    return _over_points(outputs, log_softmax)


def mean_sigmoid(outputs: Tensor) -> Tensor:
    """Mean over the Gaussian of the sigmoid; (B, K). The same for the same row, always."""
    return _over_points(outputs, log_sigmoid)


def lead_sd(outputs: Tensor) -> Tensor:
    """Standard deviation (B,) of the lead of the likeliest class over the next, in logits.

    With two classes that is the standard deviation of the log-odds.
    """
    mean, sd = split(outputs)
    variance: Tensor = sd.gather(1, mean.topk(2, dim=1).indices).square().sum(dim=1)
    return variance.sqrt()


def top_sd(outputs: Tensor) -> Tensor:
    """Standard deviation (B,) of the logit of the likeliest class."""
    mean, sd = split(outputs)
    found: Tensor = sd.gather(1, mean.argmax(dim=1, keepdim=True))[:, 0]
    return found


def _log_mean(logged: Tensor) -> Tensor:
    return logged.logsumexp(dim=0) - math.log(len(logged))


def _over_points(outputs: Tensor, log_mean: Callable[[Tensor], Tensor]) -> Tensor:
    """`log_mean` at fixed points of the Gaussian in place of draws, as a probability (B, K).

    In float64, as all scores.
    """
    mean, sd = (each.double() for each in split(outputs))
    points = _points(mean.shape[1]).to(mean)[:, None]
    parts = [
        log_mean(centre + spread * points).exp()
        for centre, spread in zip(torch.split(mean, _ROWS), torch.split(sd, _ROWS), strict=True)
    ]
    return torch.cat(parts)


def _points(classes: int) -> Tensor:
    """Evenly spread points (2 POINTS, K) of the standard normal distribution, each with its mirror.

    Pseudo-random ones would need twenty times as many for the same error.
    """
    sobol: Any = torch.quasirandom.SobolEngine  # which has no types
    uniform = sobol(classes, scramble=True, seed=0).draw(POINTS).double().clamp(1e-6, 1 - 1e-6)
    normal = torch.special.ndtri(uniform)
    return torch.cat([normal, -normal])
