"""EDM: noise of any size on an unscaled image, as elucidated by Karras et al. 2022."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mammo.generators.strategies import STRATEGIES
from mammo.generators.strategies.gaussian import Gaussian, shift, spread

if TYPE_CHECKING:
    from torch import Tensor

P_MEAN, P_STD = -1.2, 1.2  # of log sigma in training
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # first and last noise that is taken away


@STRATEGIES.register("edm")
class EDM(Gaussian):
    """x = x_0 + sigma noise; a time is sigma itself (Karras et al. 2022, table 1, last column).

    What leaves `predict` is the clean image D = c_skip x + c_out F(c_in x) (eq. 7) with the
    measured deviation of the data as sigma_data; the network's own F is a velocity, that of data
    of unit variance with the sign turned (Salimans and Ho 2022, appendix D), hence the prediction
    is called v. Above 64 px all of training's noise and SIGMA_MAX grow with the side of the image,
    as for the other strategies: at sigma 80 the mean of 512 x 512 px is seen to 0.16, that of
    64 x 64 to 1.25. SIGMA_MIN, a quarter of a step of 8 bits, stays.
    """

    PREDICTIONS = ("v",)
    SCHEDULES = ("auto",)
    WEIGHTED = False

    def __init__(
        self,
        *,
        prediction: str,
        image_size: int,
        data_sd: float,
        data_mean: float = 0.0,
        schedule: str = "auto",
    ) -> None:
        super().__init__(data_sd=data_sd, data_mean=data_mean)
        self.shift = shift(image_size)

    def times(self, uniform: Tensor) -> Tensor:
        """Log-normal sigma (N,) for `uniform` (N,) in [0, 1) (table 1, p_train)."""
        import torch

        normal = torch.special.ndtri(uniform.double().clamp(1e-6, 1 - 1e-6))
        return (self.shift * torch.exp(P_MEAN + P_STD * normal)).float()

    def network_time(self, times: Tensor) -> Tensor:
        """c_noise = log(sigma) / 4, moved to the scale 0 to 1000 of the network's embedding."""
        low, high = math.log(SIGMA_MIN), math.log(self.shift * SIGMA_MAX)
        return (times.log() - low) * (1000 / (high - low))

    def signal(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """1 and sigma, float64 (N,)."""
        sigma = times.double()
        return 0 * sigma + 1, sigma

    def parts(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The clean image itself."""
        return alpha, 0 * sigma

    def loss_weight(self, times: Tensor, gamma: float) -> Tensor:
        """lambda(sigma) = 1 / c_out^2 (table 1): the errors of F weigh the same at any sigma."""
        return (times**2 + self.data_sd**2) / (times * self.data_sd) ** 2

    def line(self, count: int) -> Tensor:
        """Sigmas from the largest to SIGMA_MIN (eq. 5)."""
        return spread(count, self.shift * SIGMA_MAX, SIGMA_MIN).float()
