"""Samples a dataset of synthetic images from a trained generator."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.generators.asking import FURTHER, parse_conditions, parse_counts, parse_range
from mammo.generators.strategies import offered
from mammo.generators.strategies.samplers import FEWEST
from mammo.run import Result, Run
from mammo.settings import Count, Fraction, NonNegativeFloat, PositiveInt, one_of

if TYPE_CHECKING:
    import torch

    from mammo.data.dataset import Dataset
    from mammo.generators.drawing import Drawer, Recipe
    from mammo.generators.generator import Generator
    from mammo.generators.masks import MaskSource
    from mammo.generators.shelf import Drawn, Effort

    SamplerName = str
    Severity = str
else:
    SamplerName = one_of(("auto", *offered("SAMPLERS")))
    Severity = one_of(("error", "warn"))

INPUTS = {"generator": "model", "masks": "dataset or model"}
LOG = logging.getLogger("mammo")
PREVIEW = 8  # samples of a class in preview.png
DEFAULTS = {"steps": 30, "mask_threshold": 0.5, "mask_area": "auto"}


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that do not go together."""
    counts = parse_counts(settings["counts"])
    if bool(settings["count"]) == bool(counts):
        raise ConfigError(
            f"count {settings['count']} and counts {settings['counts']!r}: give one of them, "
            "count=1000 or counts=benign=500,malignant=500"
        )
    most = max(settings["count"], *counts.values(), 0)
    if settings["first_seed"] + most > FURTHER:
        raise ConfigError(
            f"first_seed {settings['first_seed']} leaves no room for {most} images in a series of "
            f"{FURTHER}, beyond which seeds are those of other images; give at most "
            f"{max(0, FURTHER - most)}"
        )
    parse_conditions(settings["conditions"])
    interval = parse_range(settings["guidance_interval"], "guidance_interval")
    if settings["guidance"] == 1 and (interval != (0.0, 1.0) or settings["guidance_rescale"]):
        raise ConfigError(
            "guidance_interval and guidance_rescale change nothing at guidance 1; leave them out "
            "or give a guidance"
        )
    if settings["mask_area"] != "auto":
        parse_range(settings["mask_area"], "mask_area")


def run(
    tracked: Run,
    *,
    generator: str,
    count: Count = 0,
    counts: str = "",
    conditions: str = "",
    guidance: NonNegativeFloat = 1.0,
    guidance_interval: str = "0,1",
    guidance_rescale: Fraction = 0.0,
    steps: PositiveInt = 30,
    sampler: SamplerName = "auto",
    first_seed: Count = 0,
    masks: str = "",
    mask_threshold: Fraction = 0.5,
    mask_area: str = "auto",
    on_mismatch: Severity = "error",
    batch_size: PositiveInt = 64,
    workers: PositiveInt = 1,
    device: str = "auto",
) -> Result:
    """Sample a dataset of synthetic images from a trained generator.

    Args:
        generator: model: local path, run id, runs:/<id>/model, models:/<name>@<alias>
        count: images in all, by the class shares of the generator's training images
        counts: images by class instead, as benign=500,malignant=500
        conditions: told of all images, as view=CC,density=C; else drawn as they stood in training
        guidance: 1 follows the label as trained, more exaggerates it, 0 ignores it
        guidance_interval: shares of noise, lowest and highest, between which guidance acts
        guidance_rescale: how much of the contrast that guidance adds is taken back, 0 to 1
        steps: calls of the network for an image (two forwards in one, if guided)
        sampler: of noise; auto is the generator's first
        first_seed: place of the first image in the series of each class; the others follow
        masks: to draw around: a dataset with masks, or a generator of masks that draws them first
        mask_threshold: value from which on a drawn mask is inside; 0.5 is the nearer of the two
        mask_area: least and largest share of the image that a drawn mask covers; auto: as trained
        on_mismatch: where the images are not encoded as the real ones: error, or warn and keep them
        batch_size: images drawn and kept at a time; changes no image
        workers: processes that draw, here with the GPUs dealt out in turn, or as jobs of a cluster
        device: auto, cpu, cuda or cuda:<number>
    """
    settings = {name: value for name, value in locals().items() if name != "tracked"}
    from mammo.evaluation.parity_check import check_parity

    drawer, asked = _drawer(tracked, settings)
    drawn = _draw(tracked, drawer, asked, settings)
    dataset, effort = _write(tracked, drawer, drawn, first_seed)
    loaded = drawer.generator
    metrics = _account(loaded, dataset, effort) | _account_for_masks(drawer, effort)
    metrics |= check_parity(tracked, loaded.model.about, dataset, on_mismatch=on_mismatch)
    tracked.metrics(metrics)
    _preview(tracked, dataset)
    tracked.artifacts(dataset.folder, "dataset")
    return Result({"dataset": tracked.uri("dataset")}, metrics, dataset.digest)


def parts(tracked: Run, settings: Mapping[str, Any]) -> int:
    """Processes that share the images, with a batch for each; none beside this one for a single."""
    if settings["workers"] == 1:
        return 0
    # what it refuses is told before anything is launched, perhaps where there is no GPU
    here = "cpu" if settings["device"].startswith("cuda") else settings["device"]
    _, asked = _drawer(tracked, {**settings, "device": here})
    shared = min(int(settings["workers"]), -(-sum(asked.values()) // settings["batch_size"]))
    return shared if shared > 1 else 0


def part(tracked: Run, number: int, of: int, **settings: Any) -> None:
    """Draw the images of part `number` into the run's folder."""
    _draw(tracked, *_drawer(tracked, settings), settings, number, of)


def _drawer(tracked: Run, settings: Mapping[str, Any]) -> tuple["Drawer", dict[str, int]]:
    """What draws the images, and how many of each class; an error for what it cannot draw."""
    from mammo.generators import load_generator
    from mammo.generators.asking import Told, wanted
    from mammo.generators.drawing import Drawer, Recipe
    from mammo.generators.masks import source_of

    device = settings["device"]
    loaded = load_generator(tracked.inputs["generator"][0].path, device=device)
    loaded.check_drawing()
    asked = wanted(loaded.model, settings["count"], settings["counts"])
    fixed = parse_conditions(settings["conditions"])
    told = Told.by(loaded.model.about, fixed)
    given = tracked.inputs.get("masks", [])
    recipe = Recipe(
        guidance=settings["guidance"],
        guidance_interval=parse_range(settings["guidance_interval"], "guidance_interval"),
        guidance_rescale=settings["guidance_rescale"],
        steps=settings["steps"],
        sampler=loaded.sampler(settings["sampler"]),
        conditions=fixed,
        mask_threshold=settings["mask_threshold"],
        mask_area=settings["mask_area"],
        masks=given[0].digest if given else "",
    )
    source = source_of(loaded, list(asked), recipe, given, device=device)
    _refuse_idle(loaded, recipe, source)
    _warn_of_few_calls(recipe)
    told.warn(list(asked))
    return Drawer(loaded, recipe, told, source), asked


def _draw(
    tracked: Run,
    drawer: "Drawer",
    asked: Mapping[str, int],
    settings: Mapping[str, Any],
    number: int = 0,
    of: int = 1,
) -> "Drawn":
    """Draw part `number` of the images into the run's folder."""
    from mammo.generators.drawing import draw_all

    return draw_all(
        drawer,
        asked,
        tracked.folder / "drawn",
        first_seed=settings["first_seed"],
        batch_size=settings["batch_size"],
        memory=lambda: _memory(drawer.generator.device),
        part=number,
        parts=of,
    )


def _refuse_idle(generator: "Generator", recipe: "Recipe", source: "MaskSource | None") -> None:
    """Refuse what this generator cannot do, and settings that would change nothing."""
    from mammo.generators.masks import DrawnMasks

    about, drawn_masks = generator.model.about, isinstance(source, DrawnMasks)
    generator.check_guidance(recipe.guidance)
    idle = []
    if not generator.samplers and not drawn_masks:
        idle += ["steps"]
    if about["mode"] != "mask" and not drawn_masks:
        idle += ["mask_threshold", "mask_area"]
    for name in idle:
        value = getattr(recipe, name)
        if value != DEFAULTS[name]:
            why = "draws in one call" if name == "steps" else "is not asked to draw masks"
            raise ConfigError(
                f"{name} {value} does not apply to generator {about['generator']} of mode "
                f"{about['mode']}, which {why}; leave it out"
            )


def _warn_of_few_calls(recipe: "Recipe") -> None:
    """Log when the sampler is too coarse in so many calls: it was asked for, and so it draws."""
    fewest = FEWEST.get(recipe.sampler, 0)
    if recipe.steps < fewest:
        LOG.warning(
            "sampler %s with steps %d: it makes two calls a step, and with fewer than %d its "
            "images have too much contrast; give steps=%d or more, or sampler=auto",
            *(recipe.sampler, recipe.steps, fewest, fewest),
        )


def _write(
    tracked: Run, drawer: "Drawer", drawn: "Drawn", first_seed: int
) -> tuple["Dataset", "Effort"]:
    """The dataset of all images that were drawn, and what it took to draw them."""
    from mammo.data.writer import DatasetWriter
    from mammo.generators.again import machine
    from mammo.generators.shelf import Effort

    generator, source = drawer.generator, drawer.source
    model = generator.model
    name = f"{model.about['data_name']}-{'masks' if drawer.makes_masks else 'synthetic'}"
    parents = [{"run_id": model.run_id, "digest": model.digest, "kind": "generator"}]
    with DatasetWriter(
        tracked.folder / "dataset.partial",
        name=name,
        classes=model.classes,
        shape=generator.shape,
        dtype=drawer.dtype.name,
        about={
            "intensity": None if drawer.makes_masks else model.about["intensity"],
            "salt": model.about["salt"],
            "parents": parents + ([source.parent] if source else []),
            "sampling": drawer.recipe.to_json()
            | {
                "first_seed": first_seed,
                "run_id": tracked.id,
                "drawn_on": machine(generator.device),
            },
        },
    ) as writer:
        effort = Effort()
        for chunk in drawn:
            effort += chunk.effort
            for place, row in enumerate(drawer.rows(chunk)):
                mask = None if chunk.masks is None else chunk.masks[place]
                writer.add(chunk.images[place], {**row, "dataset": name}, mask)
        training = drawer.seen(writer.rows)
        return writer.finish(tracked.work / "datasets", generator_training=training), effort


def _account(generator: "Generator", dataset: "Dataset", effort: "Effort") -> dict[str, float]:
    """Metrics of what was drawn, by whatever process; their summary goes to the log."""
    from mammo.generators.mask_areas import rejected

    images, labels = len(dataset), dataset.manifest["label"]
    metrics = {
        "images": float(images),
        "rejected": float(effort.draws - images),
        "accepted_share": images / effort.draws,
        "images_per_second": images / effort.seconds,
        **{f"count/{name}": float((labels == name).sum()) for name in generator.classes.names},
    }
    if effort.mask_draws:
        share = 1 - sum(rejected(effort).values()) / effort.mask_draws
        metrics["mask_accepted_share"] = share
    told = [f"{name} {value:.1%}" for name, value in metrics.items() if name.endswith("_share")]
    told += [f"{effort.seconds / images:.3g} s an image", _memory(generator.device)]
    LOG.info("sampled %d images: %s", images, ", ".join(filter(None, told)))
    return metrics


def _account_for_masks(drawer: "Drawer", effort: "Effort") -> dict[str, float]:
    """Metrics of the drawn masks that were rejected, by rule; a line in the log for each."""
    from mammo.generators.mask_areas import RULES, rejected

    if not (drawer.makes_masks or effort.mask_draws):
        return {}
    recipe = drawer.recipe
    counts = rejected(effort)
    for rule, count in counts.items():
        if count:
            why = RULES[rule].format(threshold=recipe.mask_threshold, area=recipe.mask_area)
            LOG.info(
                "%d of %d drawn masks were rejected as %s and drawn again: %s",
                *(count, effort.mask_draws or effort.draws, rule.replace("_", " "), why),
            )
    return {f"mask_rejected/{rule}": float(count) for rule, count in counts.items()}


def _memory(device: "torch.device") -> str:
    """The most memory of a GPU that was used so far, in words; empty on a CPU."""
    if device.type != "cuda":
        return ""
    import torch

    return f"at most {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on the GPU"


def _preview(tracked: Run, dataset: "Dataset") -> None:
    """Upload preview.png: a row of images for every class."""
    import numpy as np
    from PIL import Image

    from mammo.generators.preview import enlarged, grid

    labels = dataset.manifest["label"]
    rows = [np.flatnonzero(labels == name)[:PREVIEW] for name in dataset.classes.names]
    columns = max(map(len, rows))
    # grey where there is no image: black would be one
    images = np.full((len(rows), columns, *dataset.shape), 0.5, np.float32)
    for number, mine in enumerate(rows):
        if len(mine):
            images[number, : len(mine)] = dataset.images(mine)
    shown = images[[len(mine) > 0 for mine in rows]].reshape(-1, *dataset.shape)
    path = tracked.folder / "preview.png"
    Image.fromarray(grid(enlarged(shown), columns=columns)).save(path)
    tracked.artifacts(path)
