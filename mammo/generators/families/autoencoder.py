"""An autoencoder with small latents for diffusion to learn: it restores images and draws none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from mammo.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from mammo.generators.artist import Artist
    from mammo.generators.learner import Learner
    from mammo.generators.material import Material
    from mammo.models import SavedModel

MODES = ("reconstruct",)
SETTINGS = (
    "channels",
    "attention",
    "res_blocks",
    "latent_channels",
    "kl_weight",
    "adversarial_weight",
    "perceptual_weight",
    "perceptual",
)
LR = 5e-4
KL_WEIGHT = 1e-6  # of a divergence summed over the latents (Rombach et al. 2022, section 3.1)
MONITOR = "val/loss"
IN_TURN = True


def check(settings: Mapping[str, Any]) -> None:
    """Refuse weights that are not there."""
    from mammo.generators.perceptual import check_distance

    if settings["perceptual_weight"]:
        check_distance(settings["perceptual"])


def plan(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The network alone: nothing is measured."""
    from mammo.generators.autoencoders import describe_kl
    from mammo.generators.losses import LEAST_SIDE

    least, side = LEAST_SIDE["perceptual"], min(material.data.shape[1:])
    if settings["perceptual_weight"] and side < least:
        raise ConfigError(
            f"perceptual_weight {settings['perceptual_weight']:g} needs images of {least} px or "
            f"more, these have {side}; use 0, or preprocess larger ones"
        )
    return {
        "network": describe_kl(
            shape=material.data.shape,
            latent_channels=settings["latent_channels"],
            channels=settings["channels"],
            attention=settings["attention"],
            res_blocks=settings["res_blocks"],
        )
    }


def learner(plan: Mapping[str, Any], material: Material, settings: Mapping[str, Any]) -> Learner:
    """Autoencoder and adversary with weights drawn from the seed, ready to fit."""
    from mammo.generators.adversary import build_critic
    from mammo.generators.autoencoders import KL, build
    from mammo.generators.autoencoding import Autoencoding
    from mammo.generators.perceptual import load_distance
    from mammo.seeds import derive
    from mammo.training.optimizing import Optimizing

    seed, shape = settings["seed"], material.data.shape
    critic = None
    if settings["adversarial_weight"]:
        critic = build_critic(shape, seed=derive(seed, "critic"))
    distance = load_distance(settings["perceptual"]) if settings["perceptual_weight"] else None
    network = cast(KL, build(plan["network"], seed=derive(seed, "weights")))
    if settings["compile"]:  # the critic is small, and quick as it is
        network.network.encoder.compile()
        network.network.decoder.compile()
    return Autoencoding(
        network,
        critic,
        distance,
        shape=shape,
        kl_weight=settings["kl_weight"] or KL_WEIGHT,
        adversarial_weight=settings["adversarial_weight"],
        perceptual_weight=settings["perceptual_weight"],
        optimizing=Optimizing.asked(settings, LR),
        gradient_clip=settings["gradient_clip"],
        seed=seed,
    )


def artist(model: SavedModel, device: torch.device) -> Artist:
    """Restores images with the saved network."""
    from mammo.generators.autoencoders import build, freeze
    from mammo.generators.autoencoding import RestoringArtist

    description = model.about["plan"]["network"]
    network = build(description)
    network.load_state_dict(model.weights())
    channels, height, width = description["image"]
    return RestoringArtist(freeze(network).to(device), (channels, height, width))


def samplers(about: Mapping[str, Any]) -> tuple[str, ...]:
    """None: it draws no noise away."""
    return ()
