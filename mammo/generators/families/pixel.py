"""Diffusion of the pixels themselves, by any strategy, in any mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.generators.conditions import check_label_input
from mammo.generators.losses import check_loss, check_side, make_loss
from mammo.generators.modes import drawn
from mammo.generators.strategies import check_strategy, chosen_prediction, strategy

if TYPE_CHECKING:
    import torch

    from mammo.generators.artist import Artist
    from mammo.generators.learner import Learner
    from mammo.generators.material import Material
    from mammo.models import SavedModel

MODES = drawn()
SETTINGS = (
    "prediction",
    "noise_schedule",
    "loss",
    "perceptual",
    "network",
    "label_input",
    "channels",
    "attention",
    "head_channels",
    "res_blocks",
    "patch",
    "min_snr_gamma",
    "label_dropout",
)
LR = 1e-3
MONITOR = "val/loss"
IN_TURN = False


def check(settings: Mapping[str, Any]) -> None:
    """Refuse what strategy, loss or network cannot do."""
    check_strategy(settings["generator"], settings)
    check_loss(settings)
    check_label_input(settings)


def plan(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Network and strategy, with mean and standard deviation of the data measured."""
    from mammo.generators.unet import describe

    check_side(settings, material.data.shape[1:])
    made, control = material.mode.channels(material.data.shape[0])
    mean, deviation = material.mean_and_deviation()
    return {
        "strategy": settings["generator"],
        "prediction": chosen_prediction(settings["generator"], settings),
        "network": describe(
            shape=material.data.shape[1:],
            made=made,
            control=control,
            labels=material.conditions.sizes,
            channels=settings["channels"],
            attention=settings["attention"],
            res_blocks=settings["res_blocks"],
            patch=settings["patch"],
            network=settings["network"],
            label_input=settings["label_input"],
            head_channels=settings["head_channels"],
        ),
        "made": [made, *material.data.shape[1:]],
        "noise_schedule": settings["noise_schedule"],
        "data_mean": mean,
        "data_sd": deviation,
    }


def learner(plan: Mapping[str, Any], material: Material, settings: Mapping[str, Any]) -> Learner:
    """The network with weights drawn from the seed, ready to fit."""
    from mammo.generators.diffusion import Diffusion
    from mammo.generators.unet import build_unet
    from mammo.seeds import derive
    from mammo.training.optimizing import Optimizing

    network = build_unet(plan["network"], seed=derive(settings["seed"], "weights"))
    if settings["compile"]:
        network.compile()
    return Diffusion(
        network,
        planned_strategy(plan),
        planned_canvas(plan, settings["mode"]),
        optimizing=Optimizing.asked(settings, LR),
        label_dropout=settings["label_dropout"],
        min_snr_gamma=settings["min_snr_gamma"],
        seed=settings["seed"],
        loss=make_loss(settings),
    )


def artist(model: SavedModel, device: torch.device) -> Artist:
    """Draws with the saved network."""
    from mammo.generators.sampling import DiffusionArtist
    from mammo.generators.unet import build_unet

    about = model.about
    network = build_unet(about["plan"]["network"], seed=0)
    network.load_state_dict(model.weights())
    return DiffusionArtist(
        network.to(device).eval(),
        planned_strategy(about["plan"]),
        planned_canvas(about["plan"], about["mode"]),
    )


def samplers(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the strategy."""
    found: tuple[str, ...] = strategy(about["plan"]["strategy"]).SAMPLERS
    return found


def planned_strategy(plan: Mapping[str, Any]) -> Any:
    """The strategy of a plan, with what was measured for it."""
    return strategy(plan["strategy"])(
        prediction=plan["prediction"],
        image_size=max(plan["made"][1:]),
        data_sd=plan["data_sd"],
        data_mean=plan["data_mean"],
        schedule=plan["noise_schedule"],
    )


def planned_canvas(plan: Mapping[str, Any], mode: str) -> Any:
    from mammo.generators.canvas import Pixels
    from mammo.generators.modes import mode_of

    channels, height, width = plan["made"]
    return Pixels(mode_of(mode), (channels, height, width))
