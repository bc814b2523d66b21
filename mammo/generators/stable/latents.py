"""The canvas of Stable Diffusion: grey images as the latents of its autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mammo.errors import ConfigError
from mammo.generators.artist import call_size, in_pieces
from mammo.generators.modes import Mode
from mammo.generators.stable.base import Parts


class StableLatents:
    """Latents of images of `shape` (1, H, W), scaled to about unit variance.

    A grey image enters as three equal channels in [-1, 1], and the mean of three is taken back.
    Images come as floats, 16-bit ones too; but the autoencoder was trained on 8-bit pictures, and
    what it gives back is no finer than they are.
    """

    def __init__(self, mode: Mode, parts: Parts, shape: tuple[int, int, int]) -> None:
        check_shape(shape, parts.factor)
        self._mode, self._parts, self.shape = mode, parts, shape
        config = parts.vae.config
        self._scale = float(config.scaling_factor)
        self._shift = float(getattr(config, "shift_factor", None) or 0)
        height, width = (side // parts.factor for side in shape[1:])
        self.made = (int(config.latent_channels), height, width)

    def target(self, batch: dict[str, Tensor]) -> Tensor:
        images = self._mode.target(batch)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            posterior = self._vae(images).encode(images.float().repeat(1, 3, 1, 1)).latent_dist
            latents: Tensor = (posterior.mode() - self._shift) * self._scale
        return latents

    def control(self, batch: dict[str, Tensor]) -> Tensor | None:
        return self._mode.control(batch)

    def fit(self, control: Tensor | None, device: torch.device) -> Tensor | None:
        return None if control is None else control.to(device)

    def clip(self, clean: Tensor) -> Tensor:
        return clean  # latents have no bounds

    def pixels(self, clean: Tensor) -> Tensor:
        with torch.autocast(clean.device.type, enabled=False):
            seen = self._vae(clean).decode(clean.float() / self._scale + self._shift).sample
        images: Tensor = (seen.mean(1, keepdim=True) + 1) / 2
        return images

    def finish(self, made: Tensor) -> Tensor:
        most = call_size(self.shape, made.device)
        return in_pieces(made, most, self.pixels).clamp(0, 1)

    def _vae(self, like: Tensor) -> Any:
        """The autoencoder, on the device of `like`."""
        return self._parts.vae.to(like.device)


def check_shape(shape: tuple[int, int, int], factor: int) -> None:
    """Refuse images that the autoencoder cannot take."""
    if shape[0] != 1:
        raise ConfigError(
            f"Stable Diffusion makes one grey image, the dataset has {shape[0]} channels; "
            "preprocess it with one channel"
        )
    if shape[1] % factor or shape[2] % factor:
        larger = -(-max(shape[1:]) // factor) * factor
        raise ConfigError(
            f"images of {shape[1]} x {shape[2]} px do not divide by {factor}, as the autoencoder "
            f"of Stable Diffusion needs; preprocess with image_size={larger}"
        )
