"""Diffusion of the latents of an autoencoder, trained here or pretrained, by any strategy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.generators.conditions import check_label_input
from mammo.generators.families import pixel
from mammo.generators.families.pixel import planned_strategy
from mammo.generators.strategies import check_strategy, chosen_prediction, strategy

if TYPE_CHECKING:
    import torch

    from mammo.generators.artist import Artist
    from mammo.generators.autoencoders import Autoencoder
    from mammo.generators.latents import Encoded, Latents
    from mammo.generators.learner import Learner
    from mammo.generators.material import Material
    from mammo.models import SavedModel

MODES = ("class", "unconditional", "mask_to_image", "dual")
# the autoencoder has made the image small already: no patch
SETTINGS = ("autoencoder", "strategy", *(each for each in pixel.SETTINGS if each != "patch"))
LR = 1e-3
MONITOR = "val/loss"
IN_TURN = False
SHOWN = 6  # images before and after, in the picture of the round trip
TRIED = 64  # validation images that make the round trip
AUGMENTS = ("none", "flip")  # what can be encoded beforehand

log = logging.getLogger("mammo")


def check(settings: Mapping[str, Any]) -> None:
    """Refuse what the strategy cannot do, or what cannot be done to latents."""
    from mammo.generators.losses import check_loss

    if not settings["autoencoder"]:
        raise ConfigError(
            "generator ldm needs autoencoder=<a model trained with generator=autoencoder, or a "
            "folder with a pretrained one>"
        )
    if settings["augment"] not in AUGMENTS:
        raise ConfigError(
            f"augment {settings['augment']!r} does not go with generator ldm, whose images are "
            f"encoded once; choose {' or '.join(AUGMENTS)}"
        )
    check_strategy(_strategy_name(settings), settings)
    check_loss(settings)
    check_label_input(settings)


def plan(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Network, strategy and autoencoder; the latents are encoded, looked at and measured."""
    from mammo.generators.losses import check_side
    from mammo.generators.unet import describe

    check_side(settings, material.data.shape[1:])
    _ground(material)
    description, network = _autoencoder(material)
    latent = description["latent"]
    unet = describe(
        shape=(latent[1], latent[2]),
        made=latent[0],
        control=material.mode.channels(material.data.shape[0])[1],
        labels=material.conditions.sizes,
        channels=settings["channels"],
        attention=settings["attention"],
        res_blocks=settings["res_blocks"],
        patch=1,  # the autoencoder has made the image small already
        network=settings["network"],
        label_input=settings["label_input"],
        head_channels=settings["head_channels"],
    )
    _look(material, network, settings)
    encoded = encode(material, network, settings, _digest(material))
    return {
        "strategy": _strategy_name(settings),
        "prediction": chosen_prediction(_strategy_name(settings), settings),
        "network": unet,
        "made": latent,
        "noise_schedule": settings["noise_schedule"],
        "data_mean": 0.0,
        "data_sd": 1.0,  # after division by the scale that was measured
        "autoencoder": description,
        "latents": encoded.measure(material.train),
    }


def learner(plan: Mapping[str, Any], material: Material, settings: Mapping[str, Any]) -> Learner:
    """The network with weights drawn from the seed, ready to fit; batches carry latents."""
    from mammo.generators.latents import LatentDiffusion
    from mammo.generators.losses import make_loss
    from mammo.generators.unet import build_unet
    from mammo.seeds import derive
    from mammo.training.optimizing import Optimizing

    network = build_unet(plan["network"], seed=derive(settings["seed"], "weights"))
    if settings["compile"]:
        network.compile()
    _, autoencoder = _autoencoder(material)
    material.columns.update(encode(material, autoencoder, settings, _digest(material)).columns())
    return LatentDiffusion(
        network,
        planned_strategy(plan),
        latents(plan, settings["mode"], autoencoder),
        optimizing=Optimizing.asked(settings, LR),
        label_dropout=settings["label_dropout"],
        min_snr_gamma=settings["min_snr_gamma"],
        seed=settings["seed"],
        loss=make_loss(settings),
    )


def artist(model: SavedModel, device: torch.device) -> Artist:
    """Draws with the saved network and the autoencoder that was saved with it."""
    from mammo.generators.latents import network_in
    from mammo.generators.sampling import DiffusionArtist
    from mammo.generators.unet import build_unet

    about, weights = model.about, model.weights()
    network = build_unet(about["plan"]["network"], seed=0)
    network.load_state_dict(network_in(weights))
    return DiffusionArtist(
        network.to(device).eval(),
        planned_strategy(about["plan"]),
        latents(about["plan"], about["mode"], autoencoder_in(about["plan"], weights)),
    )


def samplers(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the strategy."""
    found: tuple[str, ...] = strategy(about["plan"]["strategy"]).SAMPLERS
    return found


def latents(plan: Mapping[str, Any], mode: str, autoencoder: Autoencoder) -> Latents:
    """The canvas of a `plan` that has latents."""
    from mammo.generators.latents import Latents
    from mammo.generators.modes import mode_of

    return Latents(mode_of(mode), autoencoder, plan["autoencoder"], plan["latents"])


def autoencoder_in(plan: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> Autoencoder:
    """The autoencoder that was saved among the `weights` of a model, frozen."""
    from mammo.generators.autoencoders import build, freeze
    from mammo.generators.latents import PREFIX

    made = build(plan["autoencoder"])
    mine = {key: each for key, each in weights.items() if key.startswith(PREFIX)}
    made.load_state_dict({key.removeprefix(PREFIX): each for key, each in mine.items()})
    return freeze(made)


def encode(
    material: Material, autoencoder: Autoencoder, settings: Mapping[str, Any], digest: str
) -> Encoded:
    """Latents of the training and validation rows, from the run's folder where they lie already."""
    import numpy as np

    from mammo.generators.latents import encoded
    from mammo.training import choose_device

    return encoded(
        material.data,
        np.concatenate([material.train, material.val]),
        autoencoder,
        digest=digest,
        folder=material.folder,
        device=choose_device(settings["device"]),
        flipped=settings["augment"] == "flip",
    )


def _strategy_name(settings: Mapping[str, Any]) -> str:
    return "ddpm" if settings["strategy"] == "auto" else str(settings["strategy"])


def _digest(material: Material) -> str:
    return material.inputs["autoencoder"][0].digest


def _ground(material: Material) -> None:
    """What an autoencoder that was trained here has seen, the new model has seen."""
    from mammo.generators.founding import build_on
    from mammo.models import open_model

    folder = material.inputs["autoencoder"][0].path
    if (folder / "model.json").is_file():
        build_on(open_model(folder, "generator"), material, "autoencoder")


def _autoencoder(material: Material) -> tuple[dict[str, Any], Autoencoder]:
    """Description and module of what the setting names."""
    from mammo.generators.autoencoders import read

    return read(material.inputs["autoencoder"][0].path, material.data.shape)


def _look(material: Material, network: Autoencoder, settings: Mapping[str, Any]) -> None:
    """Note how real validation images come back from their latents; warn where spots do not."""
    import numpy as np

    from mammo.generators.preview import grid
    from mammo.generators.round_trip import round_trip
    from mammo.training import choose_device

    rows = material.val if len(material.val) else material.train
    some = rows[np.unique(np.linspace(0, len(rows) - 1, TRIED).astype(int))]
    trip = round_trip(network, material.data.images(some), choose_device(settings["device"]))
    material.evidence.metrics.update(trip.metrics())
    pictures = np.concatenate([trip.before[:SHOWN], trip.after[:SHOWN]])
    shown = grid(pictures, columns=min(SHOWN, len(some)))
    material.evidence.images["autoencoder/round_trip"] = shown
    if trip.warning():
        log.warning("%s", trip.warning())
        material.evidence.tags["mammo.warning.autoencoder"] = trip.warning()
