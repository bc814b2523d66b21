"""Autoencoders of every kind behind one face: images to smaller latents, and latents to images.

A description is JSON and builds the module; one's weights travel in the model that uses it.
"""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mammo.errors import CheckpointError, ConfigError
from mammo.generators.taef2 import FILES as TAEF2_FILES
from mammo.generators.taef2 import Taef2
from mammo.generators.unet import GROUPS, parse_channels
from mammo.models import open_model
from mammo.registry import Registry

KINDS = Registry("autoencoder")
DIFFUSERS = ("AutoencoderKL", "AutoencoderTiny")  # classes of diffusers that are taken


class Autoencoder(nn.Module):
    """Images (N, C, H, W) in [0, 1] to latents (N, c, h, w), and back."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the latents of `images`; None where they are certain."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Images of `latents`, unclipped and differentiable."""
        raise NotImplementedError


@KINDS.register("kl")
class KL(Autoencoder):
    """MONAI's autoencoder, regularised towards the unit normal: the one that is trained here."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        from monai.networks.nets import AutoencoderKL

        super().__init__()
        levels, attention = list(config["channels"]), int(config["attention"])
        self.network = AutoencoderKL(
            spatial_dims=2,
            in_channels=int(config["image_channels"]),
            out_channels=int(config["image_channels"]),
            channels=levels,
            latent_channels=int(config["latent_channels"]),
            num_res_blocks=int(config["res_blocks"]),
            attention_levels=[place >= len(levels) - attention for place in range(len(levels))],
            norm_num_groups=GROUPS,
            with_encoder_nonlocal_attn=attention > 0,
            with_decoder_nonlocal_attn=attention > 0,
            use_flash_attention=True,
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        mean, sd = self.network.encode(images * 2 - 1)
        return mean, sd

    def decode(self, latents: Tensor) -> Tensor:
        return cast(Tensor, self.network.decode(latents) + 1) / 2


class OfColors(Autoencoder):
    """One of RGB images: each grey channel is an image of its own, repeated, and averaged back."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        count, channels, height, width = images.shape
        grey = images.reshape(count * channels, 1, height, width)
        parts = self.encode_rgb(grey.expand(-1, 3, -1, -1))
        mean, sd = (
            None if each is None else each.reshape(count, -1, *each.shape[2:]) for each in parts
        )
        assert mean is not None
        return mean, sd

    def decode(self, latents: Tensor) -> Tensor:
        count, channels = len(latents), latents.shape[1] // self.rgb_latents
        each = latents.reshape(count * channels, self.rgb_latents, *latents.shape[2:])
        grey = self.decode_rgb(each).mean(1)
        return grey.reshape(count, channels, *grey.shape[1:])

    rgb_latents: int  # channels of the latents of one RGB image

    def encode_rgb(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """`encode` for RGB images (N, 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def decode_rgb(self, latents: Tensor) -> Tensor:
        """`decode` to RGB images (N, 3, H, W)."""
        raise NotImplementedError


@KINDS.register("taef2")
class OfTaef2(OfColors):
    """The tiny autoencoder in mammo.generators.taef2."""

    rgb_latents = 32

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = Taef2()

    def encode_rgb(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.network.encode(images), None

    def decode_rgb(self, latents: Tensor) -> Tensor:
        return self.network.decode(latents)


@KINDS.register("diffusers")
class OfDiffusers(OfColors):
    """AutoencoderKL or AutoencoderTiny of diffusers, as Stable Diffusion has them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        import diffusers

        super().__init__()
        said = dict(config)
        self.network = getattr(diffusers, said["_class_name"]).from_config(said)
        self.rgb_latents = int(said["latent_channels"])
        self._certain = said["_class_name"] == "AutoencoderTiny"

    def encode_rgb(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        encoded = self.network.encode(images * 2 - 1)
        if self._certain:
            return encoded.latents, None
        return encoded.latent_dist.mean, encoded.latent_dist.std

    def decode_rgb(self, latents: Tensor) -> Tensor:
        return cast(Tensor, self.network.decode(latents).sample + 1) / 2


def describe_kl(
    *,
    shape: tuple[int, int, int],
    latent_channels: int,
    channels: str,
    attention: int,
    res_blocks: int,
) -> dict[str, Any]:
    """Check the settings of an autoencoder to train on images of `shape` (C, H, W)."""
    levels = parse_channels(channels)
    factor = 2 ** (len(levels) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise ConfigError(
            f"images of {shape[1]} x {shape[2]} px do not divide by {factor}, as channels="
            f"{channels} need; use fewer levels or resize"
        )
    config = {
        "image_channels": shape[0],
        "latent_channels": latent_channels,
        "channels": levels,
        "attention": min(attention, len(levels)),
        "res_blocks": res_blocks,
    }
    latent = [latent_channels, shape[1] // factor, shape[2] // factor]
    return {"kind": "kl", "config": config, "image": list(shape), "latent": latent}


def build(description: Mapping[str, Any], *, seed: int = 0) -> Autoencoder:
    """An autoencoder as described, with weights drawn from `seed` until others are loaded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: Autoencoder = KINDS[description["kind"]](description["config"])
    return made


def freeze(module: Autoencoder) -> Autoencoder:
    """`module`, as it is for good."""
    return module.eval().requires_grad_(False)


def read(folder: Path, shape: tuple[int, int, int]) -> tuple[dict[str, Any], Autoencoder]:
    """Description and module, frozen, of the autoencoder in `folder` for images of `shape`.

    It is a model that was trained here, TAEF2's two files, or a folder as diffusers writes one.
    """
    if (folder / "model.json").is_file():
        return _trained(folder, shape)
    if all((folder / name).is_file() for name in TAEF2_FILES):
        module: Autoencoder = OfTaef2({})
        for part, name in zip(("encoder", "decoder"), TAEF2_FILES, strict=True):
            _load(getattr(cast(OfTaef2, module).network, part), folder / name)
        return _described("taef2", {}, module, shape)
    if (folder / "vae" / "config.json").is_file():  # the folder of a whole Stable Diffusion
        folder = folder / "vae"
    if (folder / "config.json").is_file():
        return _of_diffusers(folder, shape)
    raise ConfigError(
        f"autoencoder {str(folder)!r} holds none: give a model trained with generator=autoencoder, "
        f"a folder with {' and '.join(TAEF2_FILES)}, or one with config.json and safetensors of "
        f"diffusers' {' or '.join(DIFFUSERS)}"
    )


def _trained(folder: Path, shape: tuple[int, int, int]) -> tuple[dict[str, Any], Autoencoder]:
    model = open_model(folder, "generator")
    if model.about["generator"] != "autoencoder":
        raise ConfigError(
            f"autoencoder {str(folder)!r} is a generator {model.about['generator']}; give a model "
            "trained with generator=autoencoder"
        )
    if model.shape != shape:
        ours, theirs = (" x ".join(map(str, each)) for each in (shape, model.shape))
        raise ConfigError(
            f"autoencoder {str(folder)!r} was trained on images of {theirs} (channels, height, "
            f"width), those of data are {ours}; train one on data like these"
        )
    description = dict(model.about["plan"]["network"])
    module = build(description)
    module.load_state_dict(model.weights())
    return description, freeze(module)


def _of_diffusers(folder: Path, shape: tuple[int, int, int]) -> tuple[dict[str, Any], Autoencoder]:
    import diffusers

    try:
        name = json.loads((folder / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} is corrupt ({error}); fetch the autoencoder again"
        ) from None
    if name not in DIFFUSERS:
        raise ConfigError(
            f"autoencoder {str(folder)!r} is a {name} of diffusers; {' or '.join(DIFFUSERS)} is "
            "needed"
        )
    try:
        network = getattr(diffusers, name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(_broken(folder, error)) from None
    taken = inspect.signature(type(network)).parameters
    config = {key: value for key, value in network.config.items() if key in taken}
    # tuples become lists, as they are when read again
    config = json.loads(json.dumps({**config, "_class_name": name}))
    module = OfDiffusers(config)
    module.network.load_state_dict(network.float().state_dict())
    return _described("diffusers", config, module, shape)


def _described(
    kind: str, config: dict[str, Any], module: Autoencoder, shape: tuple[int, int, int]
) -> tuple[dict[str, Any], Autoencoder]:
    """Description of a pretrained `module` for images of `shape`, tried on one empty image."""
    freeze(module)
    empty = torch.zeros(1, *shape)
    try:
        with torch.inference_mode():
            latent = module.encode(empty)[0]
            back = module.decode(latent)
        fits = back.shape == empty.shape
    except RuntimeError:  # halves of an odd side do not meet again
        fits = False
    if not fits:
        raise ConfigError(
            f"images of {shape[1]} x {shape[2]} px do not come back from this autoencoder as large "
            "as they were; preprocess with an image_size that divides by 8"
        )
    return {
        "kind": kind,
        "config": config,
        "image": list(shape),
        "latent": list(latent.shape[1:]),
    }, module


def _load(module: nn.Module, path: Path) -> None:
    """Load the state dict at `path` into `module`, every key of it and no other."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, AttributeError) as error:
        raise CheckpointError(_broken(path, error)) from None


def _broken(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path} is corrupt or of another network ({reason[:200]}); fetch it again"
