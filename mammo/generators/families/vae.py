"""A class-conditional variational autoencoder: quick to train, samples in one call, smooth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.generators.modes import drawn

if TYPE_CHECKING:
    import torch

    from mammo.generators.artist import Artist
    from mammo.generators.learner import Learner
    from mammo.generators.material import Material
    from mammo.models import SavedModel

MODES = drawn()
SETTINGS = ("channels", "latent_dim", "kl_weight", "label_dropout")
LR = 1e-3
MONITOR = "val/loss"
IN_TURN = False


def check(settings: Mapping[str, Any]) -> None:
    """Nothing that the plan does not see at once."""


def plan(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The network alone: nothing is measured."""
    from mammo.generators.one_call import describe

    made, control = material.mode.channels(material.data.shape[0])
    return {
        "network": describe(
            made=(made, *material.data.shape[1:]),
            control=control,
            labels=material.conditions.sizes,
            channels=settings["channels"],
            latent_dim=settings["latent_dim"],
        )
    }


def learner(plan: Mapping[str, Any], material: Material, settings: Mapping[str, Any]) -> Learner:
    """Encoder and decoder with weights drawn from the seed, ready to fit."""
    from mammo.generators.vae import KL_WEIGHT, Variational, build_decoder, build_encoder
    from mammo.seeds import derive
    from mammo.training.optimizing import Optimizing

    seed = settings["seed"]
    encoder = build_encoder(plan["network"], seed=derive(seed, "encoder"))
    decoder = build_decoder(plan["network"], seed=derive(seed, "decoder"))
    if settings["compile"]:
        encoder.compile()
        decoder.compile()
    return Variational(
        encoder,
        decoder,
        _canvas(plan, settings["mode"]),
        labels=material.conditions.sizes,
        optimizing=Optimizing.asked(settings, LR),
        kl_weight=settings["kl_weight"] or KL_WEIGHT,
        label_dropout=settings["label_dropout"],
        seed=seed,
    )


def artist(model: SavedModel, device: torch.device) -> Artist:
    """Draws with the saved decoder."""
    from mammo.generators.one_call import OneCallArtist
    from mammo.generators.vae import build_decoder

    plan = model.about["plan"]
    decoder = build_decoder(plan["network"], seed=0)
    decoder.load_state_dict(model.weights())
    return OneCallArtist(decoder.to(device).eval(), _canvas(plan, model.about["mode"]))


def samplers(about: Mapping[str, Any]) -> tuple[str, ...]:
    """None: one call draws."""
    return ()


def _canvas(plan: Mapping[str, Any], mode: str) -> Any:
    from mammo.generators.canvas import Pixels
    from mammo.generators.modes import mode_of

    channels, height, width = plan["network"]["made"]
    return Pixels(mode_of(mode), (channels, height, width))
