"""Trains a generator on the real training images of a dataset, and on nothing else."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.evaluation.extractors import STAND_IN, check_extractor, weights_sha256
from mammo.generators import FAMILIES, GENERATORS, family
from mammo.generators.balance import check_balance
from mammo.generators.conditions import check_columns
from mammo.generators.modes import MODES, mode_of
from mammo.generators.strategies import known, offered
from mammo.loggers import LOGGERS, check_logger
from mammo.run import Result, Run
from mammo.settings import Count, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, one_of

if TYPE_CHECKING:
    from pathlib import Path

    from mammo.generators.train import Trained
    from mammo.models import SavedModel

    GeneratorName = str
    StrategyName = str
    PredictionName = str
    ModeName = str
    ScheduleName = str
    LabelInput = str
    NetworkName = str
    OptimizerName = str
    LrSchedule = str
    AugmentName = str
    BalanceName = str
    Adapters = str
    MonitorName = str
    PrecisionName = str
    LoggerName = str
else:
    GeneratorName = one_of(GENERATORS)
    StrategyName = one_of(("auto", *known()))
    PredictionName = one_of(("auto", *offered("PREDICTIONS")))
    ModeName = one_of(("auto", *MODES))
    ScheduleName = one_of(offered("SCHEDULES"))
    LabelInput = one_of(("embedding", "context"))
    NetworkName = one_of(("unet", "minimal"))
    OptimizerName = one_of(("adamw", "adam"))
    LrSchedule = one_of(("cosine", "constant", "plateau", "step"))
    AugmentName = one_of(("none", "flip", "geometric", "all"))
    BalanceName = one_of(("none", "ratio", "fixed"))
    Adapters = one_of(("one", "per_class"))
    MonitorName = one_of(("auto", "val/loss", "val/kid"))
    PrecisionName = one_of(("auto", "32", "bf16"))
    LoggerName = one_of(LOGGERS)

INPUTS = {
    "data": "dataset",
    "autoencoder": "model or files",
    "base": "model or files or hub",
    "control_weights": "files or hub",
}
PREVIEW = 6  # samples of a class in preview.png
# what the minimal network has not
UNET_ALONE = ("attention", "head_channels", "res_blocks", "label_input")


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that do not go together."""
    settings = _with_mode(settings)
    chosen = family(settings["generator"])
    if settings["mode"] not in chosen.MODES:
        raise ConfigError(
            f"mode {settings['mode']!r} does not go with generator {settings['generator']}; "
            f"choose {' or '.join(chosen.MODES)}"
        )
    _refuse_idle(settings)
    check_columns(settings["conditions"])
    if settings["conditions"] and not mode_of(settings["mode"]).labelled:
        raise ConfigError(
            f"conditions {settings['conditions']!r} do not go with mode {settings['mode']}, which "
            "is told nothing; use mode=class"
        )
    if settings["augment"] != "none" and "laterality" in settings["conditions"]:
        raise ConfigError(
            f"augment {settings['augment']!r} mirrors left and right breasts, and conditions "
            f"{settings['conditions']!r} tell them apart; leave one of the two out"
        )
    check_balance(settings)
    if chosen.IN_TURN:
        _refuse_in_turn(settings)
    chosen.check(settings)
    check_logger(settings["logger"])
    if settings["nodes"] > 1 and settings.get("launcher", "local") == "local":
        from mammo.training.nodes import check_nodes

        check_nodes(settings["nodes"])
    if _measures_kid(settings):
        check_extractor(settings["extractor"])
    if settings["find_lr"] and settings["lr"]:
        raise ConfigError(
            f"lr {settings['lr']} is given and find_lr would replace it; leave one of the two out"
        )
    if settings["ema"] == 1:
        raise ConfigError("ema 1 would keep the first weights for ever; use 0.999, or 0 for none")


def source_digest(settings: Mapping[str, Any]) -> str:
    """Hashes of the weights that compare images: others under the same path are another run."""
    named = [settings["perceptual"], settings["extractor"] if _measures_kid(settings) else ""]
    files = [each.rpartition("@")[2] for each in named if each not in ("", STAND_IN)]
    return ",".join(weights_sha256(f"@{path}") for path in files)


def _refuse_in_turn(settings: Mapping[str, Any]) -> None:
    """Refuse what has no meaning for two networks that move in turn."""
    turns = f"does not go with generator {settings['generator']}, which moves two networks in turn"
    if settings["accumulate"] > 1:
        raise ConfigError(
            f"accumulate {settings['accumulate']} {turns}; use 1, and a smaller batch_size"
        )
    if settings["find_lr"]:
        raise ConfigError(f"find_lr {turns}; give lr")


def _with_mode(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the generator's own mode where that is left to it."""
    mode = settings["mode"]
    return {**settings, "mode": family(settings["generator"]).MODES[0] if mode == "auto" else mode}


def _measures_kid(settings: Mapping[str, Any]) -> bool:
    own = family(settings["generator"]).MONITOR
    monitor = own if settings["monitor"] == "auto" else settings["monitor"]
    return bool(settings["kid_every"]) or monitor == "val/kid"


def _refuse_idle(settings: Mapping[str, Any]) -> None:
    """Refuse a setting that only other generators or networks read: it would change nothing."""
    mine = set(family(settings["generator"]).SETTINGS)
    defaults = {name: each.default for name, each in inspect.signature(run).parameters.items()}
    readers: dict[str, list[str]] = {}
    for name in FAMILIES:
        for setting in family(name).SETTINGS:
            readers.setdefault(setting, []).append(name)
    for setting, names in readers.items():
        value = settings.get(setting, defaults[setting])
        if setting not in mine and value != defaults[setting]:
            raise ConfigError(
                f"{setting} {value!r} does not apply to generator {settings['generator']}; it goes "
                f"with {', '.join(names)}"
            )
    for setting in UNET_ALONE if settings["network"] == "minimal" else ():
        value = settings.get(setting, defaults[setting])
        if value != defaults[setting]:
            raise ConfigError(
                f"{setting} {value!r} does not apply to network minimal; it goes with unet"
            )


def run(
    tracked: Run,
    *,
    data: str,
    generator: GeneratorName = "ddpm",
    strategy: StrategyName = "auto",
    prediction: PredictionName = "auto",
    mode: ModeName = "auto",
    conditions: str = "",
    label_input: LabelInput = "embedding",
    noise_schedule: ScheduleName = "auto",
    loss: str = "mse",
    perceptual: str = "",
    epochs: PositiveInt = 100,
    batch_size: PositiveInt = 16,
    accumulate: PositiveInt = 1,
    lr: NonNegativeFloat = 0.0,
    lr_schedule: LrSchedule = "cosine",
    warm_up: Count = 100,
    optimizer: OptimizerName = "adamw",
    weight_decay: NonNegativeFloat = 0.01,
    gradient_clip: NonNegativeFloat = 1.0,
    ema: Fraction = 0.999,
    min_snr_gamma: NonNegativeFloat = 0.0,
    label_dropout: Fraction = 0.1,
    network: NetworkName = "unet",
    channels: str = "32,64,96",
    attention: Count = 1,
    head_channels: PositiveInt = 32,
    res_blocks: PositiveInt = 1,
    patch: PositiveInt = 4,
    autoencoder: str = "",
    latent_channels: PositiveInt = 4,
    latent_dim: PositiveInt = 128,
    kl_weight: NonNegativeFloat = 0.0,
    adversarial_weight: NonNegativeFloat = 0.01,
    perceptual_weight: NonNegativeFloat = 0.1,
    critic_steps: PositiveInt = 5,
    gradient_penalty: NonNegativeFloat = 10.0,
    base: str = "",
    control_weights: str = "",
    prompt: str = "",
    adapters: Adapters = "one",
    lora_rank: PositiveInt = 4,
    lora_alpha: PositiveFloat = 16.0,
    lora_dropout: Fraction = 0.1,
    augment: AugmentName = "none",
    balance: BalanceName = "none",
    majority_ratio: PositiveFloat = 1.0,
    samples_per_class: Count = 0,
    patience: Count = 0,
    monitor: MonitorName = "auto",
    kid_every: Count = 0,
    extractor: str = "random",
    fold: str = "none",
    val_fraction: Fraction = 0.15,
    sample_every: Count = 10,
    devices: PositiveInt = 1,
    nodes: PositiveInt = 1,
    precision: PrecisionName = "auto",
    channels_last: bool = False,
    compile: bool = False,
    find_lr: bool = False,
    find_batch_size: bool = False,
    upload_minutes: NonNegativeFloat = 15.0,
    logger: LoggerName = "mlflow",
    seed: int = 0,
    device: str = "auto",
) -> Result:
    """Train a generator on the real training images of a dataset.

    Args:
        data: dataset: local path, run id, runs:/<id>/dataset
        generator: what learns; ddpm, rflow and edm are diffusion of pixels, ldm of latents
        strategy: how ldm and controlnet diffuse; auto is ddpm, or that of the base
        prediction: of the network: v (velocity), of ddpm also epsilon (noise) or x0 (image)
        mode: images of a class or any, masks, images or pairs around masks; auto is the first
        conditions: manifest columns that are told too, as view,density
        label_input: embedding of each label, or context, one number that is attended to
        noise_schedule: of ddpm; auto is linear with epsilon, else cosine, shifted above 64 px
        loss: terms and weights, as mse=0.7,ms_ssim=0.2,sobel=0.05, or a preset's name
        perceptual: network of the perceptual loss: weights file of LPIPS, or NAME@WEIGHTS
        epochs: times every training image is seen
        batch_size: images of one optimizer step, over all devices
        accumulate: parts that a batch is computed in, one after the other, to save memory
        lr: highest learning rate; 0 is the generator's own
        lr_schedule: after the warm-up: cosine, constant, plateau (halves), step (in fifths)
        warm_up: optimizer steps from 0 to the full learning rate, at most a tenth of all
        optimizer: adamw, or adam (weight decay in the gradient)
        weight_decay: of the optimizer
        gradient_clip: largest norm of the gradient; 0 for no limit
        ema: decay of the averaged weights that sample and are saved; 0 for none
        min_snr_gamma: largest signal-to-noise ratio that weights the loss (ddpm); 0 for no weights
        label_dropout: share of images shown without what is told of them, for guidance
        network: unet, or the minimal one of the baselines
        channels: channels of the network, one number a level
        attention: how many of the deepest levels have self-attention
        head_channels: channels of an attention head, where they divide those of its level
        res_blocks: residual blocks a level
        patch: pixels on a side that enter the network as one
        autoencoder: of ldm: a trained autoencoder, or a folder with pretrained weights
        latent_channels: of the autoencoder that is trained
        latent_dim: numbers that vae and gan make an image of
        kl_weight: of the divergence from the unit normal (vae, autoencoder); 0 is its own
        adversarial_weight: of the discriminator's judgement (autoencoder)
        perceptual_weight: of the perceptual distance (autoencoder)
        critic_steps: of gan, for one of the generator
        gradient_penalty: weight of gan's penalty on the critic's gradient
        base: what sd_lora and controlnet build on: a trained generator, a folder, or a hub's name
        control_weights: pretrained ControlNet to start from on Stable Diffusion; empty is the base
        prompt: text for an image with {class}, {view} and other columns in it
        adapters: of sd_lora: one for all classes, or one per class
        lora_rank: rank of the adapters
        lora_alpha: scale of the adapters
        lora_dropout: of the adapters
        augment: changes of training images: none, flip, geometric, all (also contrast)
        balance: of the classes in an epoch, drawn anew each: none, ratio, fixed (so many of each)
        majority_ratio: with balance=ratio, images of a larger class for one of the smallest
        samples_per_class: with balance=fixed, images of each class in an epoch
        patience: epochs without a better monitored value that end the training; 0 for all epochs
        monitor: what chooses the best checkpoint; auto is the generator's own, never train/loss
        kid_every: epochs between measurements of val/kid; 0 for none, unless it is monitored
        extractor: features of val/kid: random (a stand-in) or NAME@WEIGHTS, as for evaluate
        fold: none for a hold-out, or the number of the fold that must not be seen
        val_fraction: share of the other folds' patients that validate, when fold is a number
        sample_every: epochs between logged samples; 0 for none
        devices: GPUs, or processes on a CPU, of each machine that share each batch
        nodes: machines of a Slurm job that share each batch
        precision: auto is bf16 where the device computes in it, else 32
        channels_last: memory order that convolutions on a GPU prefer
        compile: compile the network first (minutes; pays off on a GPU)
        find_lr: sweep the learning rate first and use what the sweep suggests
        find_batch_size: double batch_size first while a step fits into the memory
        upload_minutes: least time between uploads of the best and last weights; 0 for none
        logger: also write TensorBoard files or a Weights & Biases run; MLflow always
        seed: of weights, order and noise
        device: auto, cpu, cuda or cuda:<number>
    """
    settings = _with_mode({name: value for name, value in locals().items() if name != "tracked"})
    from mammo.generators.train import train

    trained = train(tracked, settings)
    saved = _save(tracked, trained, settings)
    _preview(tracked, saved.folder, trained)
    fitted = trained.fitted
    metrics = {
        trained.monitor: fitted.best_score,
        "images_seen": float(fitted.images_seen),
        "images_per_second": fitted.images_seen / fitted.seconds,
    }
    return Result({"model": tracked.uri("model")}, metrics, saved.digest)


def _save(tracked: Run, trained: "Trained", settings: Mapping[str, Any]) -> "SavedModel":
    """Save the model with all that sampling and the leakage guard need, and upload it."""
    from mammo.evaluation.parity_check import real_summary
    from mammo.generators.mask_areas import areas
    from mammo.models import save_model

    material, data = trained.material, trained.material.data
    frame = data.manifest.iloc[material.train]
    counts = frame["label"].value_counts()
    made, control = material.mode.channels(data.shape[0])
    about: dict[str, Any] = {
        "plan": trained.plan,
        "conditions": material.conditions.to_json(),
        "combinations": material.conditions.combinations(frame),
        "generator": settings["generator"],
        "mode": settings["mode"],
        "fold": settings["fold"],
        "asks": {
            "conditions": list(material.conditions.columns[1:]),
            "mask": material.mode.masked and control > 0,
            "makes": [made, *data.shape[1:]],
        },
        "train_counts": {name: int(counts.get(name, 0)) for name in data.classes.names},
        **({"mask_areas": areas(data, material.train)} if material.mode.masked else {}),
        "train_digest": data.digest,
        "data_digest": data.digest,
        "commit": tracked.commit(),
        "epoch": trained.fitted.best_epoch,
        "metrics": {trained.monitor: trained.fitted.best_score},
        "images_seen": trained.fitted.images_seen,
        "data_name": data.name,
        "real_summary": real_summary(
            data,
            material.train,
            masks=settings["mode"] == "mask",
            told=material.mode.labelled,
        ),
        **{key: data.about.get(key) for key in ("salt", "split_seed", "intensity", "dtype")},
    }
    about["asks"]["samplers"] = list(family(settings["generator"]).samplers(about))
    saved = save_model(
        tracked.folder / "model",
        kind="generator",
        run_id=tracked.id,
        classes=data.classes,
        shape=data.shape,
        weights=trained.learner.weights(),
        training=material.training(),
        settings=trained.settings,
        about=about,
        note=trained.plan.get("note"),
    )
    tracked.model(saved.folder)
    return saved


def _preview(tracked: Run, folder: "Path", trained: "Trained") -> None:
    """Upload preview.png: a row of samples for every class, drawn by the model as it was saved."""
    import numpy as np
    from PIL import Image

    from mammo.generators.generator import Generator
    from mammo.generators.preview import enlarged, grid
    from mammo.generators.watching import asked_like, rows_by_class

    artist = Generator.load(folder, device=str(trained.fitted.device)).artist
    rows = rows_by_class(trained.material, PREVIEW)
    drawn = [artist.draw(asked_like(trained.material, each)).numpy() for each in rows.values()]
    # grey where there is no image: black would be one
    canvas = np.full((len(drawn), PREVIEW, *artist.shape), 0.5, np.float32)
    for place, images in enumerate(drawn):
        canvas[place, : len(images)] = images
    path = tracked.folder / "preview.png"
    shown = enlarged(canvas.reshape(-1, *artist.shape))
    Image.fromarray(grid(shown, columns=PREVIEW)).save(path)
    tracked.artifacts(path)
