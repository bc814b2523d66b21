"""A conditional generative adversarial network: sharp samples in one call, of less variety."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.generators.modes import drawn

if TYPE_CHECKING:
    import torch

    from mammo.generators.artist import Artist
    from mammo.generators.learner import Learner
    from mammo.generators.material import Material
    from mammo.models import SavedModel

MODES = drawn()
SETTINGS = (
    "channels",
    "latent_dim",
    "label_dropout",
    "network",
    "critic_steps",
    "gradient_penalty",
)
LR = 1e-4
BETAS = (0.0, 0.9)  # Gulrajani et al. 2017, algorithm 1: a moving target wants no momentum
MONITOR = "val/kid"
IN_TURN = True


def check(settings: Mapping[str, Any]) -> None:
    """Refuse a choice by what measures no image."""
    if settings["monitor"] == "val/loss":
        raise ConfigError(
            "monitor 'val/loss' does not go with generator gan: it is the critic's estimate, which "
            "is least before either has learned; use val/kid"
        )


def plan(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The networks alone: nothing is measured."""
    from mammo.generators.one_call import describe

    made, control = material.mode.channels(material.data.shape[0])
    described = describe(
        made=(made, *material.data.shape[1:]),
        control=control,
        labels=material.conditions.sizes,
        channels=settings["channels"],
        latent_dim=settings["latent_dim"],
    )
    return {"network": {**described, "network": settings["network"]}}


def learner(plan: Mapping[str, Any], material: Material, settings: Mapping[str, Any]) -> Learner:
    """Maker and critic with weights drawn from the seed, ready to fit."""
    from mammo.generators.gan import Adversarial
    from mammo.generators.gan_networks import build_critic, build_maker
    from mammo.seeds import derive
    from mammo.training.optimizing import Optimizing

    seed = settings["seed"]
    maker = build_maker(plan["network"], seed=derive(seed, "maker"))
    critic = build_critic(plan["network"], seed=derive(seed, "critic"))
    if settings["compile"]:
        maker.compile()  # the critic is differentiated twice, which no compiled network can be
    return Adversarial(
        maker,
        critic,
        _canvas(plan, settings["mode"]),
        labels=material.conditions.sizes,
        optimizing=Optimizing.asked(settings, LR, betas=BETAS),
        critic_steps=settings["critic_steps"],
        gradient_penalty=settings["gradient_penalty"],
        gradient_clip=settings["gradient_clip"],
        label_dropout=settings["label_dropout"],
        seed=seed,
    )


def artist(model: SavedModel, device: torch.device) -> Artist:
    """Draws with the saved maker."""
    from mammo.generators.gan_networks import build_maker
    from mammo.generators.one_call import OneCallArtist

    plan = model.about["plan"]
    maker = build_maker(plan["network"], seed=0)
    maker.load_state_dict(model.weights())
    return OneCallArtist(maker.to(device).eval(), _canvas(plan, model.about["mode"]))


def samplers(about: Mapping[str, Any]) -> tuple[str, ...]:
    """None: one call draws."""
    return ()


def _canvas(plan: Mapping[str, Any], mode: str) -> Any:
    from mammo.generators.canvas import Pixels
    from mammo.generators.modes import mode_of

    channels, height, width = plan["network"]["made"]
    return Pixels(mode_of(mode), (channels, height, width))
