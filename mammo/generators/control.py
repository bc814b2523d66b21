"""ControlNet on a diffusion that was trained here: what family controlnet does for such a base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.generators import FAMILIES
from mammo.generators.families import latent
from mammo.generators.families.pixel import planned_strategy
from mammo.generators.losses import check_loss, check_side
from mammo.generators.strategies import check_strategy, strategy

if TYPE_CHECKING:
    import torch

    from mammo.generators.artist import Artist
    from mammo.generators.canvas import Canvas
    from mammo.generators.learner import Learner
    from mammo.generators.material import Material
    from mammo.models import SavedModel

LR = 1e-3
BASES = ("pixel", "latent")  # families of a base
MODES = ("class", "unconditional")  # of a base


def check(settings: Mapping[str, Any]) -> None:
    """Refuse a loss that cannot be computed; the rest depends on the base."""
    check_loss(settings)
    for setting in ("prompt", "control_weights"):
        if settings[setting]:
            raise ConfigError(
                f"{setting} {settings[setting]!r} goes with a base of Stable Diffusion, not with "
                "one that was trained here; leave it out"
            )


def plan(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The base's plan, with the channels of the control."""
    from mammo.generators.founding import build_on, check_told, tell_as

    base = _base(material)
    _check_base(base, settings)
    check_told(base, material, settings)
    build_on(base, material, "base")
    check_side(settings, material.data.shape[1:])
    tell_as(base, material)
    control = material.mode.channels(material.data.shape[0])[1]
    return {**base.about["plan"], "control": control, "base": base.digest}


def learner(plan: Mapping[str, Any], material: Material, settings: Mapping[str, Any]) -> Learner:
    """The base, frozen, and a ControlNet that adds nothing yet."""
    from mammo.generators.controlled_unet import build_controlled
    from mammo.generators.diffusion import Diffusion
    from mammo.generators.founding import tell_as
    from mammo.generators.latents import LatentDiffusion, network_in
    from mammo.generators.losses import make_loss
    from mammo.seeds import derive
    from mammo.training.optimizing import Optimizing

    base = _base(material)
    weights = base.weights()
    tell_as(base, material)
    seed = derive(settings["seed"], "weights")
    network = build_controlled(plan["network"], plan["control"], seed=seed)
    network.start_from(network_in(weights) if "latents" in plan else weights)
    if settings["compile"]:
        network.compile()
    if "latents" in plan:
        autoencoder = latent.autoencoder_in(plan, weights)
        encoded = latent.encode(material, autoencoder, settings, base.digest)
        material.columns.update(encoded.columns())
    kind = LatentDiffusion if "latents" in plan else Diffusion
    return kind(
        network,
        planned_strategy(plan),
        _canvas(plan, settings["mode"], weights),
        optimizing=Optimizing.asked(settings, LR),
        label_dropout=settings["label_dropout"],
        min_snr_gamma=settings["min_snr_gamma"],
        seed=settings["seed"],
        loss=make_loss(settings),
    )


def artist(model: SavedModel, device: torch.device) -> Artist:
    """Draws with the saved base and control."""
    from mammo.generators.controlled_unet import build_controlled
    from mammo.generators.latents import network_in
    from mammo.generators.sampling import DiffusionArtist

    about, weights = model.about, model.weights()
    plan = about["plan"]
    network = build_controlled(plan["network"], plan["control"], seed=0)
    network.load_state_dict(network_in(weights) if "latents" in plan else weights)
    return DiffusionArtist(
        network.to(device).eval(),
        planned_strategy(plan),
        _canvas(plan, about["mode"], weights),
    )


def samplers(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the base's strategy."""
    found: tuple[str, ...] = strategy(about["plan"]["strategy"]).SAMPLERS
    return found


def _canvas(plan: Mapping[str, Any], mode: str, weights: Mapping[str, torch.Tensor]) -> Canvas:
    """The base's, with `weights` that hold its autoencoder where it has one."""
    from mammo.generators.canvas import Pixels
    from mammo.generators.modes import mode_of

    if "latents" in plan:
        return latent.latents(plan, mode, latent.autoencoder_in(plan, weights))
    channels, height, width = plan["made"]
    return Pixels(mode_of(mode), (channels, height, width))


def _base(material: Material) -> SavedModel:
    from mammo.models import open_model

    return open_model(material.inputs["base"][0].path, "generator")


def _check_base(base: SavedModel, settings: Mapping[str, Any]) -> None:
    """Refuse a base that has no ControlNet, and settings that are not those of the base."""
    about = base.about
    name, mode, built = about["generator"], about["mode"], about["plan"]
    if FAMILIES.get(name) not in BASES or mode not in MODES:
        raise ConfigError(
            f"base {base.run_id} is a generator {name} of mode {mode}; controlnet builds on one of "
            f"{', '.join(each for each in FAMILIES if FAMILIES[each] in BASES)} and mode "
            f"{' or '.join(MODES)}"
        )
    if built["network"]["network"] != "unet":
        raise ConfigError(
            f"base {base.run_id} has network {built['network']['network']}, which no ControlNet "
            "goes with; train a base with network=unet"
        )
    for setting in ("prediction", "strategy"):
        needed = built[setting]
        if settings[setting] not in (needed, "auto"):
            raise ConfigError(
                f"{setting} {settings[setting]!r} is not that of base {base.run_id}; give "
                f"{setting}={needed}"
            )
    if "latents" in built and settings["augment"] not in latent.AUGMENTS:
        raise ConfigError(
            f"augment {settings['augment']!r} does not go with a base of latents, whose images are "
            f"encoded once; choose {' or '.join(latent.AUGMENTS)}"
        )
    schedule = {"noise_schedule": built["noise_schedule"]}
    check_strategy(built["strategy"], {**settings, **schedule})
