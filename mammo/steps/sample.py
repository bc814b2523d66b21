"""Samples a dataset of synthetic images from a trained generator."""

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mammo.errors import ConfigError, DataError
from mammo.run import Result, Run
from mammo.seeds import derive
from mammo.settings import Count, NonNegativeFloat, PositiveInt, one_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mammo.data.dataset import Dataset
    from mammo.generators.generator import Generator
    from mammo.models import SavedModel

    SamplerName = str
else:
    SamplerName = one_of(("auto", "ddim", "dpmpp", "unipc", "euler", "heun", "ddpm"))

INPUTS = {"generator": "model"}
log = logging.getLogger("mammo")
FLAT = 1 / 64  # range of values below which an image shows nothing
PREVIEW = 8  # samples of a class in preview.png


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that do not go together."""
    wanted = _parse_counts(settings["counts"])
    if bool(settings["count"]) == bool(wanted):
        raise ConfigError(
            f"count {settings['count']} and counts {settings['counts']!r}: give one of them, "
            "count=1000 or counts=benign=500,malignant=500"
        )


def run(
    tracked: Run,
    *,
    generator: str,
    count: Count = 0,
    counts: str = "",
    guidance: NonNegativeFloat = 1.0,
    steps: PositiveInt = 30,
    sampler: SamplerName = "auto",
    first_seed: Count = 0,
    batch_size: PositiveInt = 64,
    device: str = "auto",
) -> Result:
    """Sample a dataset of synthetic images from a trained generator.

    Args:
        generator: model: local path, run id, runs:/<id>/model, models:/<name>@<alias>
        count: images in all, by the class shares of the generator's training images
        counts: images by class instead, as benign=500,malignant=500
        guidance: 1 follows the label as trained, more exaggerates it, 0 ignores it
        steps: calls of the network for an image (two forwards in one, if guided)
        sampler: auto, dpmpp, ddim or ddpm (of ddpm), euler (of rflow)
        first_seed: place of the first image in the series of each class; the others follow
        batch_size: images written at a time; changes no image
        device: auto, cpu, cuda or cuda:<number>
    """
    import time

    from mammo.generators import load_generator

    loaded = load_generator(tracked.inputs["generator"][0].path, device=device)
    chosen = loaded.sampler(sampler)
    wanted = _wanted(loaded.model, count, counts)
    settings: dict[str, Any] = {
        "guidance": guidance,
        "steps": steps,
        "sampler": chosen,
        "first_seed": first_seed,
    }
    started = time.monotonic()
    batches = _images(loaded, wanted, batch_size=batch_size, **settings)
    dataset, rejected = _write(tracked, loaded.model, batches, settings)
    elapsed = time.monotonic() - started
    found = dataset.manifest["label"].value_counts()
    metrics = {
        "images": float(len(dataset)),
        "rejected": float(rejected),
        "images_per_second": (len(dataset) + rejected) / elapsed,
        **{f"count/{name}": float(found.get(name, 0)) for name in loaded.classes.names},
    }
    tracked.metrics(metrics)
    _preview(tracked, dataset)
    tracked.artifacts(dataset.folder, "dataset")
    return Result({"dataset": tracked.uri("dataset")}, metrics, dataset.digest)


def _parse_counts(counts: str) -> dict[str, int]:
    """Images by class of "benign=500,malignant=500"; empty for an empty text."""
    wanted: dict[str, int] = {}
    for part in filter(None, counts.split(",")):
        name, _, number = part.strip().rpartition("=")
        if not name or not number.isdigit() or not int(number) or name in wanted:
            raise ConfigError(
                f"counts {counts!r}: {part!r} should be <class>=<images>, each class once, "
                "as in benign=500,malignant=500"
            )
        wanted[name] = int(number)
    return wanted


def _wanted(model: "SavedModel", count: int, counts: str) -> dict[str, int]:
    """Images by class, in the order of the class ids."""
    wanted = _parse_counts(counts)
    names = model.classes.names
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ConfigError(f"unknown class {unknown[0]!r}; choose one of {', '.join(names)}")
    if not wanted:
        wanted = by_share(count, model.about["train_counts"])
    if model.about["mode"] == "unconditional" and len(wanted) > 1:
        raise ConfigError(
            f"an unconditional generator cannot tell {' from '.join(wanted)}; name the class that "
            "its images stand for with counts=<class>=<images>, or train with mode=class"
        )
    return {name: wanted[name] for name in names if name in wanted}


def by_share(count: int, train_counts: Mapping[str, int]) -> dict[str, int]:
    """Split `count` by the class shares, largest remainder first (Hamilton); empty classes out."""
    total = sum(train_counts.values())
    parts = {name: divmod(count * number, total) for name, number in train_counts.items()}
    missing = count - sum(whole for whole, _ in parts.values())
    # sorted() is stable: equal remainders go by class order
    order = sorted(parts, key=lambda name: -parts[name][1])
    extra = set(order[:missing])
    shares = {name: whole + (name in extra) for name, (whole, _) in parts.items()}
    return {name: number for name, number in shares.items() if number}


def _images(
    generator: "Generator",
    wanted: Mapping[str, int],
    *,
    batch_size: int,
    first_seed: int,
    **settings: Any,
) -> Iterator[tuple[str, int, "NDArray[np.float32]"]]:
    """Class, seed and image (C, H, W) in [0, 1], class by class."""
    todo = [
        (name, seed_of(name, first_seed + i))
        for name, number in wanted.items()
        for i in range(number)
    ]
    for start in range(0, len(todo), batch_size):
        batch = todo[start : start + batch_size]
        images = generator.sample(
            [name for name, _ in batch], seeds=[seed for _, seed in batch], **settings
        )
        log.info("sampled %d of %d images", start + len(batch), len(todo))
        for (name, seed), image in zip(batch, images, strict=True):
            yield name, seed, image


def seed_of(label: str, place: int) -> int:
    """Seed of image `place` of a class: classes start far apart, so that they share no noise.

    Within a class seeds follow each other: torch keeps 32 bits of a seed, and of 100,000 drawn
    ones two would be the same.
    """
    return (derive(0, "sample", label) >> 32) + place  # the start is below 2**31


def _write(
    tracked: Run,
    model: "SavedModel",
    images: Iterator[tuple[str, int, "NDArray[np.float32]"]],
    settings: Mapping[str, Any],
) -> tuple["Dataset", int]:
    """The dataset of all images that show something, and how many did not."""
    from mammo.data.writer import DatasetWriter

    name = f"{model.about['data_name']}-synthetic"
    dtype = np.dtype(model.about["dtype"])
    # the same seed drawn in another way is another image, and may be mixed with the first
    how = f"{derive(0, *(settings[name] for name in ('guidance', 'steps', 'sampler'))):016x}"[-6:]
    rejected = 0
    with DatasetWriter(
        tracked.folder / "dataset.partial",
        name=name,
        classes=model.classes,
        shape=model.shape,
        dtype=dtype.name,
        about={
            "intensity": model.about["intensity"],
            "salt": model.about["salt"],
            "parents": [{"run_id": model.run_id, "digest": model.digest, "kind": "generator"}],
            "sampling": dict(settings),
        },
    ) as writer:
        for label, seed, image in images:
            if not np.isfinite(image).all() or np.ptp(image) < FLAT:
                rejected += 1
                continue
            short = f"{model.run_id[:12]}-{how}-{label}-{seed}"
            writer.add(
                np.rint(image * np.iinfo(dtype).max).astype(dtype),
                {
                    "dataset": name,
                    "group_id": f"synthetic-{short}",
                    "exam_id": f"synthetic-{short}",
                    "image_id": short,
                    "label": label,
                    "label_kind": model.classes.label_kind,
                    "split": "train",
                    "is_synthetic": True,
                    "generator_run_id": model.run_id,
                    "sample_seed": seed,
                },
            )
        if not writer.rows:
            raise DataError(
                f"all {rejected} samples were rejected as flat; train the generator longer"
            )
        return writer.finish(tracked.work / "datasets", generator_training=_seen(model)), rejected


def _seen(model: "SavedModel") -> "pd.DataFrame":
    """What the generator was trained on, for the guard against leaks through mixing."""
    frame = model.training[["group_id", "sha256"]].copy()
    frame.insert(0, "run_id", model.run_id)
    frame.insert(1, "salt", str(model.about["salt"] or ""))
    return frame.reset_index(drop=True)


def _preview(tracked: Run, dataset: "Dataset") -> None:
    """Upload preview.png: a row of images for every class."""
    from PIL import Image

    from mammo.generators.preview import grid

    labels = dataset.manifest["label"]
    rows = [np.flatnonzero(labels == name)[:PREVIEW] for name in dataset.classes.names]
    images = np.zeros((len(rows), PREVIEW, *dataset.shape), np.float32)
    for number, mine in enumerate(rows):
        if len(mine):
            images[number, : len(mine)] = dataset.images(mine)
    shown = images[[len(mine) > 0 for mine in rows]].reshape(-1, *dataset.shape)
    path = tracked.folder / "preview.png"
    Image.fromarray(grid(shown, columns=PREVIEW)).save(path)
    tracked.artifacts(path)
