"""Refuses settings of train_classifier that contradict each other, or that would change nothing."""

from collections.abc import Mapping
from typing import Any

from mammo.classifiers.changing import check_changing, class_augments
from mammo.classifiers.losses import LOSSES, check_uncertainty
from mammo.classifiers.plans import check_plan
from mammo.classifiers.recipe import check_folds, seeds_of
from mammo.classifiers.views import check_views
from mammo.classifiers.weights import check_weights
from mammo.data.mix_settings import MixSettings
from mammo.data.samplers import SAMPLERS, check_room
from mammo.errors import ConfigError
from mammo.loggers import check_logger

Settings = Mapping[str, Any]
# counts of epochs that never come in a training of so many: setting -> what it needs
_LATE = {
    "lr_every": "no fall of the rate",
    "lr_patience": "no fall of the rate",
    "patience_after": "no epoch for patience to count",
}


def check_settings(settings: Settings, defaults: Settings) -> None:
    """Refuse what does not go together; `defaults` are those of the step's signature."""
    check_folds(settings["folds"])
    check_weights(settings["weights"])
    check_logger(settings["logger"])
    check_plan(settings, defaults)
    MixSettings.of(settings).check(str(settings["synthetic"]))
    if settings["finetune"] != "full" and settings["weights"] == "none":
        raise ConfigError(
            f"finetune {settings['finetune']!r} would keep a random backbone; give weights default "
            "or a file, or finetune full"
        )
    _check_runs(settings, defaults)
    _check_scoring(settings)
    _check_phases(settings, defaults)
    _check_epochs(settings, defaults)
    _check_shares(settings)
    _check_team(settings)
    check_uncertainty(settings, defaults)
    check_room(settings["sampler"], settings["batch_size"])
    LOSSES.refuse_idle([settings["loss"]], settings, defaults)
    # whatever the sampler, batches have a batch_size
    read = {name: value for name, value in defaults.items() if name != "batch_size"}
    SAMPLERS.refuse_idle([settings["sampler"]], settings, read)
    check_changing(settings, defaults)
    check_views(settings, defaults)


def check_classes(settings: Settings, defaults: Settings, names: tuple[str, ...]) -> None:
    """Refuse an `augment` that no class takes, `names` being those of the dataset."""
    if settings["augment"] != defaults["augment"] and set(names) <= set(
        class_augments(settings["class_augment"])
    ):
        raise ConfigError(
            f"augment {settings['augment']!r} has no effect: class_augment "
            f"{settings['class_augment']!r} names every class; leave augment out"
        )


def _check_runs(settings: Settings, defaults: Settings) -> None:
    several = len(seeds_of(settings["seeds"], settings["seed"])) > 1 or settings["folds"] == "all"
    if settings["jobs"] > 1 and not several:
        raise ConfigError(
            f"jobs {settings['jobs']} has one run to share; use folds all, several seeds, or jobs 1"
        )
    if settings["folds"] == "none" and settings["val_fraction"] != defaults["val_fraction"]:
        raise ConfigError(
            f"val_fraction {settings['val_fraction']:g} has no effect with folds none, whose "
            "validation patients the dataset names; preprocess it with that val_fraction, or "
            "choose folds"
        )


def _check_scoring(settings: Settings) -> None:
    """Refuse to leave a fold unscored where there is none, or where all are pooled."""
    if not settings["score_fold"] and not str(settings["folds"]).isdecimal():
        raise ConfigError(
            f"score_fold false with folds {settings['folds']!r}: only a single fold can be left "
            "unscored; give the number of a fold"
        )


def _check_team(settings: Settings) -> None:
    """Refuse what several processes cannot do together."""
    size = settings["devices"] * settings["nodes"]
    if size == 1:
        return
    team = f"devices {settings['devices']} times nodes {settings['nodes']}"
    for name, able in (("finetune", ("full", "partial")), ("views", ("none",)), ("jobs", (1,))):
        if settings[name] not in able:
            raise ConfigError(
                f"{team} do not go with {name} {settings[name]}; use "
                f"{' or '.join(map(str, able))}, or one device"
            )
    if settings["batch_size"] % size or settings["batch_size"] < 2 * size:
        raise ConfigError(
            f"batch_size {settings['batch_size']} cannot be shared evenly by {team}; use a "
            f"multiple of {size}, {2 * size} or more"
        )


def _check_phases(settings: Settings, defaults: Settings) -> None:
    """Refuse phases that do not go together, and what only a phase or a search reads."""
    for name in ("subset_epochs", "real_epochs"):
        if settings[name] and settings["finetune"] == "gradual":
            raise ConfigError(
                f"{name} {settings[name]} would begin gradual unfreezing anew; use another finetune"
            )
    if settings["real_lr_factor"] != 1 and not settings["real_epochs"]:
        raise ConfigError(
            f"real_lr_factor {settings['real_lr_factor']} does not apply without real_epochs"
        )
    if settings["overfit"] and settings["limit"]:
        raise ConfigError(
            f"overfit {settings['overfit']} takes its own share of the patients; leave out limit"
        )
    if settings["find_lr"] and settings["lr"] != defaults["lr"]:
        raise ConfigError(
            f"lr {settings['lr']} is given and find_lr would replace it; leave one of the two out"
        )


def _check_epochs(settings: Settings, defaults: Settings) -> None:
    """Refuse what would begin after the last epoch of every phase."""
    if settings["patience_after"] and not settings["patience"]:
        raise ConfigError(
            f"patience_after {settings['patience_after']} has no effect with patience 0, which "
            "ends no training; give a patience"
        )
    if settings["finetune"] == "gradual" and settings["unfreeze_after"] >= settings["epochs"]:
        raise ConfigError(
            f"unfreeze_after {settings['unfreeze_after']} leaves no epoch of {settings['epochs']} "
            "to a further block; give more epochs, or finetune head"
        )
    most = max(settings[name] for name in ("epochs", "subset_epochs", "real_epochs"))
    for name, without in _LATE.items():
        if settings[name] != defaults[name] and settings[name] >= most:
            raise ConfigError(
                f"{name} {settings[name]} leaves {without} in {most} epochs; give fewer than "
                f"{most}, or more epochs"
            )
    if settings["snapshot_every"] > most:
        raise ConfigError(
            f"snapshot_every {settings['snapshot_every']} keeps no model in {most} epochs; give "
            f"{most} or fewer, or 0"
        )


def _check_shares(settings: Settings) -> None:
    """Refuse the ends of a range that leave nothing, or change nothing."""
    for name, left in (
        ("dropout", "feature"),
        ("drop_path", "block"),
        ("label_smoothing", "label"),
    ):
        if settings[name] == 1:
            raise ConfigError(f"{name} 1 leaves no {left}; it must be below 1")
    if settings["lr_drop"] == 1:
        raise ConfigError("lr_drop 1 never lowers the rate; give less, or lr_schedule constant")
    if 0 < settings["sampler_ratio"] < 1:
        raise ConfigError(
            f"sampler_ratio {settings['sampler_ratio']:g} would make the larger classes the "
            "smaller ones; give 1 or more"
        )
    if settings["head"] == "batch_norm" and settings["batch_size"] == 1:
        raise ConfigError("batch_size 1 has no variance for head 'batch_norm'; use 2 or more")
