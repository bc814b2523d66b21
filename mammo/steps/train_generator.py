"""Trains a generator on the real training images of a dataset, and on nothing else."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError, DataError
from mammo.generators import METHODS, method
from mammo.run import Result, Run
from mammo.seeds import derive
from mammo.settings import Count, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, one_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mammo.data.dataset import Dataset
    from mammo.generators.network import Network
    from mammo.models import SavedModel

    MethodName = str
    PredictionName = str
    ModeName = str
    PrecisionName = str
else:
    MethodName = one_of(METHODS)
    PredictionName = one_of({name for each in METHODS for name in method(each).PREDICTIONS})
    ModeName = one_of({name for each in METHODS for name in method(each).MODES})
    PrecisionName = one_of(("auto", "32", "bf16"))

INPUTS = {"data": "dataset"}
PREVIEW = 6  # samples of a class in preview.png


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that do not go together."""
    chosen = method(settings["generator"])
    for setting, known in (("prediction", chosen.PREDICTIONS), ("mode", chosen.MODES)):
        if settings[setting] not in known:
            raise ConfigError(
                f"{setting} {settings[setting]!r} does not go with generator "
                f"{settings['generator']}; choose {' or '.join(known)}"
            )
    chosen.check(settings)
    if settings["ema"] == 1:
        raise ConfigError("ema 1 would keep the first weights for ever; use 0.999, or 0 for none")


def run(
    tracked: Run,
    *,
    data: str,
    generator: MethodName = "ddpm",
    prediction: PredictionName = "v",
    mode: ModeName = "class",
    epochs: PositiveInt = 100,
    batch_size: PositiveInt = 16,
    lr: PositiveFloat = 1e-3,
    ema: Fraction = 0.999,
    min_snr_gamma: NonNegativeFloat = 0.0,
    label_dropout: Fraction = 0.1,
    channels: str = "32,64,96",
    attention: Count = 1,
    res_blocks: PositiveInt = 1,
    patch: PositiveInt = 4,
    patience: Count = 0,
    fold: str = "none",
    val_fraction: Fraction = 0.15,
    sample_every: Count = 10,
    precision: PrecisionName = "auto",
    compile: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> Result:
    """Train a generator on the real training images of a dataset.

    Args:
        data: dataset: local path, run id, runs:/<id>/dataset
        generator: method; ddpm is diffusion in small steps, rflow along straight lines
        prediction: what the network predicts: v (velocity); ddpm also epsilon (noise), x0 (image)
        mode: class learns each class by its label, unconditional ignores labels
        epochs: times every training image is seen
        batch_size: images of one optimizer step
        lr: highest learning rate, after a warm-up and before a cosine to a twentieth
        ema: decay of the averaged weights that sample and are saved; 0 for none
        min_snr_gamma: largest signal-to-noise ratio that weights the loss (ddpm); 0 for no weights
        label_dropout: share of images shown without their label, for guidance
        channels: channels of the network, one number a level
        attention: how many of the deepest levels have self-attention
        res_blocks: residual blocks a level
        patch: pixels on a side that enter the network as one
        patience: epochs without a better val/loss that end the training; 0 for all epochs
        fold: none for a hold-out, or the number of the fold that must not be seen
        val_fraction: share of the other folds' patients that validate, when fold is a number
        sample_every: epochs between logged samples; 0 for none
        precision: auto is bf16 where the device computes in it, else 32
        compile: compile the network first (minutes; pays off on a GPU)
        seed: of weights, order and noise
        device: auto, cpu, cuda or cuda:<number>
    """
    settings = {name: value for name, value in locals().items() if name != "tracked"}
    from mammo.data.dataset import Dataset
    from mammo.data.loading import ordered_batches, training_batches
    from mammo.data.splits import training_rows
    from mammo.generators.diffusion import Diffusion, SampleGrids, epoch_order
    from mammo.generators.network import build_network, describe
    from mammo.training import Averaging, fit

    opened = Dataset(tracked.inputs["data"][0].path)
    rows = training_rows(opened, fold=fold, val_fraction=val_fraction)
    train = _real_training_rows(opened, rows.train, fold)
    if not len(train):
        raise DataError(
            f"dataset {opened.name} has no real training image among its {len(rows.train)}; "
            "a generator learns from real images only"
        )
    description = describe(
        shape=opened.shape,
        classes=len(opened.classes.names) if mode == "class" else 0,
        channels=channels,
        attention=attention,
        res_blocks=res_blocks,
        patch=patch,
    )
    data_sd = _standard_deviation(opened, train)
    network = build_network(description, seed=derive(seed, "weights"))
    if compile:
        network.compile()
    chosen = method(generator)
    module = Diffusion(
        network,
        chosen.process(prediction, max(opened.shape[1:]), data_sd),
        lr=lr,
        label_dropout=label_dropout,
        min_snr_gamma=min_snr_gamma,
    )
    tracked.input(opened.name, opened.digest, len(train), "training")
    tracked.input(opened.name, opened.digest, len(rows.val), "validation")
    grids = SampleGrids(
        tracked, opened.classes, opened.shape, every=sample_every, sampler=chosen.SAMPLERS[0]
    )
    fitted = fit(
        module,
        train=training_batches(
            opened,
            train,
            batch_size=batch_size,
            order=lambda epoch: epoch_order(
                len(train), batch_size=batch_size, seed=seed, epoch=epoch
            ),
        ),
        val=ordered_batches(opened, rows.val, batch_size=batch_size),
        tracked=tracked,
        epochs=epochs,
        seed=seed,
        monitor="val/loss",
        mode="min",
        patience=patience,
        device=device,
        precision=precision,
        gradient_clip=1.0,
        callbacks=[*([Averaging(ema)] if ema else []), grids],
    )
    about = {"network": description, "data_sd": data_sd}
    saved = _save(tracked, opened, train, network, about, settings)
    _preview(tracked, saved.folder, device)
    metrics = {
        "val/loss": fitted.best_score,
        "images_seen": float(fitted.images_seen),
        "images_per_second": fitted.images_seen / fitted.seconds,
    }
    return Result({"model": tracked.uri("model")}, metrics, saved.digest)


def _real_training_rows(
    data: "Dataset", rows: "NDArray[np.int64]", fold: str
) -> "NDArray[np.int64]":
    """The real ones of `rows`; a row of another split or of the scored fold is a bug."""
    frame = data.manifest.iloc[rows]
    real = frame[~frame["is_synthetic"]]
    held_out = real[(real["split"] != "train") | (real["fold"].astype(str) == fold)]
    if len(held_out):
        raise AssertionError(f"held-out image {held_out.iloc[0]['image_id']} among training rows")
    kept: NDArray[np.int64] = rows[~frame["is_synthetic"].to_numpy()]
    return kept


def _standard_deviation(data: "Dataset", rows: "NDArray[np.int64]") -> float:
    """Of the pixels of at most 512 of `rows`, spread evenly, in [-1, 1]; to three digits."""
    import numpy as np

    some = np.unique(np.linspace(0, len(rows) - 1, 512).astype(int))
    return max(0.05, round(2 * float(data.images(rows[some]).std()), 3))


def _save(
    tracked: Run,
    data: "Dataset",
    train: "NDArray[np.int64]",
    network: "Network",
    about: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> "SavedModel":
    """Save the model with all that sampling and the leakage guard need, and upload it."""
    from mammo.models import save_model

    frame = data.manifest.iloc[train]
    counts = frame["label"].value_counts()
    about = {
        **about,
        "generator": settings["generator"],
        "prediction": settings["prediction"],
        "mode": settings["mode"],
        "fold": settings["fold"],
        "train_counts": {name: int(counts.get(name, 0)) for name in data.classes.names},
        "train_digest": data.digest,
        "data_name": data.name,
        **{key: data.about.get(key) for key in ("salt", "split_seed", "intensity", "dtype")},
    }
    saved = save_model(
        tracked.folder / "model",
        kind="generator",
        run_id=tracked.id,
        classes=data.classes,
        shape=data.shape,
        weights=network.state_dict(),
        training=frame,
        settings=settings,
        about=about,
    )
    tracked.model(saved.folder)
    return saved


def _preview(tracked: Run, folder: "Path", device: str) -> None:
    """Upload preview.png: a row of samples for every class."""
    from PIL import Image

    from mammo.generators.generator import Generator
    from mammo.generators.preview import grid

    generator = Generator.load(folder, device=device)
    names = generator.classes.names
    labels = [name for name in names for _ in range(PREVIEW)]
    images = generator.sample(labels, seeds=list(range(PREVIEW)) * len(names), steps=30)
    path = tracked.folder / "preview.png"
    Image.fromarray(grid(images, columns=PREVIEW)).save(path)
    tracked.artifacts(path)
