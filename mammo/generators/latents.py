"""Latents in place of pixels: encoded once, kept on disk, drawn in each step, decoded to see."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mammo.data.dataset import Dataset
from mammo.generators import augment, draws
from mammo.generators.artist import call_size, in_pieces
from mammo.generators.autoencoders import Autoencoder
from mammo.generators.diffusion import Diffusion
from mammo.generators.material import Column, Rows
from mammo.generators.modes import Mode

log = logging.getLogger("mammo")
NETWORK, PREFIX = "network.", "autoencoder."  # of their weights among those of a model


class Latents:
    """The canvas of a diffusion of latents (N, c, h, w): their mean is 0, their variance 1.

    `plan` has shift (a number a channel), scale and bound, as `measure` finds them. The
    autoencoder is frozen and no module of what is trained: it follows the latents to their device.
    """

    def __init__(
        self,
        mode: Mode,
        autoencoder: Autoencoder,
        description: Mapping[str, Any],
        plan: Mapping[str, Any],
    ) -> None:
        self._mode, self.autoencoder = mode, autoencoder
        channels, height, width = description["image"]
        self.shape = (channels, height, width)
        channels, height, width = description["latent"]
        self.made = (channels, height, width)
        self._shift = torch.tensor(plan["shift"]).view(1, -1, 1, 1)
        self._scale, self._bound = float(plan["scale"]), float(plan["bound"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Latents:
        return self

    def target(self, batch: dict[str, Tensor]) -> Tensor:
        latent = batch["latent"]
        return (latent - self._shift.to(latent.device)) / self._scale

    def control(self, batch: dict[str, Tensor]) -> Tensor | None:
        given = self._mode.control(batch)
        return self.fit(given, batch["latent"].device)

    def fit(self, control: Tensor | None, device: torch.device) -> Tensor | None:
        """Each latent is told the mean of the control over the pixels it stands for."""
        if control is None:
            return None
        return functional.adaptive_avg_pool2d(control.to(device), self.made[1:])

    def clip(self, clean: Tensor) -> Tensor:
        return clean.clamp(-self._bound, self._bound)

    def pixels(self, clean: Tensor) -> Tensor:
        with torch.autocast(clean.device.type, enabled=False):
            latent = clean.float() * self._scale + self._shift.to(clean.device)
            return self.autoencoder.to(clean.device).decode(latent)

    def finish(self, made: Tensor) -> Tensor:
        most = call_size(self.shape, made.device)
        return in_pieces(made, most, self.pixels).clamp(0, 1)

    def weights(self) -> dict[str, Tensor]:
        """The autoencoder's, under names of their own."""
        return {PREFIX + name: each for name, each in self.autoencoder.state_dict().items()}


class LatentDiffusion(Diffusion):
    """Diffusion whose batches have `latent` and, where they are uncertain or mirrored, more.

    An encoded row is a normal distribution of latents, from which each step draws; where the
    images of a step are mirrored (augment=flip), it is that of the mirrored image.
    """

    canvas: Latents

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        step, rows = self.trainer.global_step, batch["row"]
        drawing = draws.generators(self._seed, "latents", step, rows=rows)
        if "flipped" in batch:  # as Augmentation has mirrored image and mask
            changes = augment.drawn("flip", seed=self._seed, step=step, rows=rows)
            batch = mirrored(batch, changes.mirrored)
        return super().training_step(drawn(batch, drawing), index)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        drawing = draws.generators(0, "validation latents", rows=batch["row"])
        return super().validation_step(drawn(batch, drawing), index)

    def weights(self) -> dict[str, Tensor]:
        """The network's and the autoencoder's: nothing else is needed to draw."""
        network = {NETWORK + name: each for name, each in super().weights().items()}
        return {**network, **self.canvas.weights()}


def mirrored(batch: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    """`batch` with the latents of the mirrored images in the `chosen` rows, (N,) bool."""
    turned = chosen[:, None, None, None]
    sides = {"latent": "flipped", "latent_sd": "flipped_sd"}
    pairs = {one: other for one, other in sides.items() if one in batch}
    return {
        **batch,
        **{one: torch.where(turned, batch[other], batch[one]) for one, other in pairs.items()},
    }


def drawn(batch: dict[str, Tensor], drawing: Sequence[torch.Generator]) -> dict[str, Tensor]:
    """`batch` with latents drawn from what is known of them: mean and standard deviation."""
    if "latent_sd" not in batch:
        return batch
    mean, sd = batch["latent"], batch["latent_sd"]
    noise = draws.normal(drawing, mean.shape[1:], mean.device)
    return {**batch, "latent": mean + sd * noise}


def network_in(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's among the `weights` of a model of latents."""
    mine = [name for name in weights if name.startswith(NETWORK)]
    return {name.removeprefix(NETWORK): weights[name] for name in mine}


@dataclass(frozen=True)
class Encoded:
    """Latents of some rows of a dataset, on disk: arrays (rows, c, h, w) by name, float16."""

    rows: Rows  # sorted
    arrays: dict[str, NDArray[np.float16]]  # latent and, as far as there are, _sd and flipped

    def columns(self) -> dict[str, Column]:
        """What batches carry: float32 arrays of the rows that are asked for."""
        return {name: self._column(array) for name, array in self.arrays.items()}

    def measure(self, rows: Rows) -> dict[str, Any]:
        """Shift (mean of a channel), scale (standard deviation) and bound of the latents of `rows`.

        The scale is one for all channels: a channel that hardly varies stays as small as it
        matters to the decoder. To five digits, so that another order of adding up changes nothing.
        """
        at = np.searchsorted(self.rows, rows)
        total, squares, count = np.zeros(self.arrays["latent"].shape[1]), 0.0, 0
        for some in np.array_split(at, max(1, len(at) // 256)):
            mean = self.arrays["latent"][some].astype(np.float64)
            total += mean.sum((0, 2, 3))
            count += mean[:, 0].size
        shift = total / count
        bound = 0.0
        for some in np.array_split(at, max(1, len(at) // 256)):
            mean = self.arrays["latent"][some].astype(np.float64) - shift[:, None, None]
            sd = self.arrays["latent_sd"][some] if "latent_sd" in self.arrays else np.float16(0)
            squares += (mean**2 + np.square(sd, dtype=np.float64)).sum()
            bound = max(bound, float((np.abs(mean) + 3 * np.asarray(sd, np.float64)).max()))
        scale = max(1e-6, float(np.sqrt(squares / (count * len(shift)))))
        return {
            "shift": [float(f"{each:.5g}") for each in shift],
            "scale": float(f"{scale:.5g}"),
            "bound": float(f"{bound / scale:.3g}"),
        }

    def _column(self, array: NDArray[np.float16]) -> Column:
        def of(rows: Rows) -> NDArray[Any]:
            return array[np.searchsorted(self.rows, rows)].astype(np.float32)

        return of


def encoded(
    data: Dataset,
    rows: Rows,
    network: Autoencoder,
    *,
    digest: str,
    folder: Path,
    device: torch.device,
    flipped: bool,
) -> Encoded:
    """Latents of `rows`, from `folder` where they lie already; `digest` is the autoencoder's.

    They are written beside their name and renamed when whole: an encoding that is cut short is
    made again from its start.
    """
    rows = np.unique(rows)
    said = f"{data.digest} {digest} {flipped} {hashlib.sha256(rows.tobytes()).hexdigest()}"
    place = folder / "latents" / hashlib.sha256(said.encode()).hexdigest()[:32]
    if not place.is_dir():
        partial = place.with_name(f"{place.name}.{os.getpid()}.partial")  # two may encode at once
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _encode(data, rows, network.to(device), partial, device=device, flipped=flipped)
        try:
            partial.replace(place)
        except OSError:  # the other process was first
            if not place.is_dir():
                raise
            shutil.rmtree(partial)
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(place.glob("*.npy"))}
    return Encoded(rows, arrays)


@torch.inference_mode()
def _encode(
    data: Dataset,
    rows: Rows,
    network: Autoencoder,
    folder: Path,
    *,
    device: torch.device,
    flipped: bool,
) -> None:
    """Write the latents of `rows` into `folder`, a few images at a time."""
    open_arrays: dict[str, Any] = {}
    width = call_size(data.shape, device)
    for start in range(0, len(rows), width):
        images = torch.from_numpy(data.images(rows[start : start + width])).to(device)
        sides = {"latent": images, **({"flipped": images.flip(-1)} if flipped else {})}
        for name, side in sides.items():
            mean, sd = network.encode(side)
            for key, values in ((name, mean), (f"{name}_sd", sd)):
                if values is None:
                    continue
                if key not in open_arrays:
                    open_arrays[key] = np.lib.format.open_memmap(
                        folder / f"{key}.npy",
                        mode="w+",
                        dtype=np.float16,
                        shape=(len(rows), *values.shape[1:]),
                    )
                open_arrays[key][start : start + len(images)] = values.cpu().numpy()
        if start // width % 50 == 0:
            log.info("encoded %d of %d images", min(start + width, len(rows)), len(rows))
    for array in open_arrays.values():
        array.flush()
