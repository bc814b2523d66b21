"""preprocess: images on disk become a dataset, split by patient and free of names."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mammo.data.request import (
    ATTENUATION,
    SCALES,
    check_settings,
    digest_of_files,
    grey_range,
    listed,
    parse_size,
)
from mammo.data.sources import ADAPTERS, check_request, open_adapter, task_of
from mammo.errors import ConfigError, DataError
from mammo.run import Result, Run
from mammo.settings import Count, Fraction, NonNegativeFloat, one_of

if TYPE_CHECKING:
    from mammo.data.intake import Preparation
    from mammo.data.partition import Divided
    from mammo.data.release import Record, Release

    DatasetName = str
    Intensity = str
    CropName = str
    FramesName = str
    RawName = str
    GroupName = str
    NewPatients = str
else:
    DatasetName = one_of(ADAPTERS)
    Intensity = one_of(SCALES)
    CropName = one_of(("auto", "breast", "film", "none"))
    FramesName = one_of(("auto", "refuse", "central", "maximum"))
    RawName = one_of(("refuse", "log"))
    GroupName = one_of(("patient", "patient_laterality", "image"))
    NewPatients = one_of(("error", "train"))

# Settings that only some adapters take, with the value that means "not given".
OPTIONS: dict[str, Any] = {
    "channels": "",
    "csv": "",
    "path_column": "",
    "path_pattern": "",
    "patient_column": "",
    "label_column": "",
    "class_map": "",
    "label_kind": "",
    "positive": "",
    "laterality_column": "",
    "view_column": "",
    "mask_column": "",
    "split_column": "",
    "keep_columns": "",
    "patient_pattern": "",
    "mask_file": "",
    "slices": "",
    "planes": "",
    "synthetic_origin": "",
    "patients": 0,
    "contrast": 1.0,
    "variant": "",
}


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that cannot go together, before anything is read."""
    name = str(settings["dataset"])
    check_request(name, str(settings["task"]), _options(settings))
    if not settings["source"] and not getattr(open_adapter(name), "GENERATES", False):
        raise ConfigError(f"dataset {name} needs --source, the folder of the release")
    if settings["source"] and not Path(settings["source"]).expanduser().is_dir():
        raise DataError(f"source {settings['source']} is not a folder")
    check_settings(settings)


def source_digest(settings: Mapping[str, Any]) -> str:
    """Digest of what the folder and the split file hold now: other files are another run."""
    return digest_of_files(settings)


def run(
    tracked: Run,
    *,
    dataset: DatasetName,
    source: str = "",
    task: str = "malignancy2",
    image_size: str = "128",
    channels: str = "",
    intensity: Intensity = "header",
    fixed_range: str = "",
    crop: CropName = "auto",
    frames: FramesName = "auto",
    for_processing: RawName = "refuse",
    exclude: str = "implant,magnification,spot,biopsy",
    subset: str = "",
    val_fraction: Fraction = 0.15,
    test_fraction: Fraction = 0.2,
    k_folds: Count = 0,
    group_by: GroupName = "patient",
    stratify_by: str = "label",
    split_file: str = "",
    new_patients: NewPatients = "error",
    warmup_negatives: Count = 0,
    limit: Count = 0,
    strict: bool = True,
    csv: str = "",
    path_column: str = "",
    path_pattern: str = "",
    patient_column: str = "",
    label_column: str = "",
    class_map: str = "",
    label_kind: str = "",
    positive: str = "",
    laterality_column: str = "",
    view_column: str = "",
    mask_column: str = "",
    split_column: str = "",
    keep_columns: str = "",
    patient_pattern: str = "",
    mask_file: str = "",
    slices: str = "",
    planes: str = "",
    synthetic_origin: str = "",
    patients: Count = 0,
    contrast: NonNegativeFloat = 1.0,
    variant: str = "",
    workers: Count = 1,
    seed: int = 0,
) -> Result:
    """Turn the images of a release into a dataset: cropped, turned, resized, split by patient.

    Args:
        dataset: the adapter that reads the release
        source: folder of the release; empty makes one where the adapter can (phantom)
        task: what the label is, as malignancy2, density2, view; label takes the names as they are
        image_size: side in pixels, or HxW
        channels: cesm, nifti: pictures stored as channels, as low_energy,subtracted or t1_pre,t1_gd
        intensity: grey scale by header (VOI), breast's percentiles, fixed_range, or as stored
        fixed_range: what intensity fixed maps to black and white, as 0,4095
        crop: to the breast, to the breast on film, none; auto is what the adapter says
        frames: which frame of a multi-frame file; auto is what the adapter says
        for_processing: refuse raw detector values, or turn them by -log
        exclude: flags that leave an image out, with commas; empty takes all
        subset: named parts of the release to take, with commas; empty takes all
        val_fraction: part of the patients for validation
        test_fraction: part of the patients for the test
        k_folds: folds of the patients outside the test, instead of a validation split; 0 for none
        group_by: patient; patient_laterality and image tear patients and leak, to show what it does
        stratify_by: columns whose values each split shares alike, as label,vendor
        split_file: splits.csv of an earlier run to follow, or a CSV with patient, split, fold
        new_patients: patients whom split_file does not name: error, or train
        warmup_negatives: negative patients for each positive one in a warm-up subset; 0 for none
        limit: patients to take; 0 for all
        strict: stop at an image that cannot be used; false leaves it out and lists it
        csv: csv, nifti: the file in source; csv: several with commas, whose names tell the split
        path_column: csv: column of the image's path below source; several with commas: channels
        path_pattern: csv: the path made of columns, as images/{patient_id}_{image_id}.png
        patient_column: csv, nifti: column of the patient; without it each image is its own
        label_column: csv, nifti: column of the label
        class_map: csv, folder, nifti: classes of values, as malignant=1,benign=0,leave_out=2
        label_kind: csv, folder, nifti: pathology, birads, follow-up, reader or acquisition
        positive: csv, folder, nifti: the positive class when task is label
        laterality_column: csv: column of L or R
        view_column: csv: column of CC or MLO
        mask_column: csv: column of the lesion masks' paths, with semicolons
        split_column: csv, nifti: column of the official split
        keep_columns: csv: further columns for the manifest
        patient_pattern: folder: regular expression whose group is the patient in a file's path
        mask_file: nifti: name of the mask volume beside the image; seg by default
        slices: nifti: marked takes slices with a lesion alone, a number every so many
        planes: nifti: what lies side by side in each file, as t1_pre,t1_gd,seg
        synthetic_origin: csv, folder, nifti: who made these generated images; taken as synthetic
        patients: phantom: how many to make; 0 for the adapter's default
        contrast: phantom: contrast of the lesions, 0 for invisible ones
        variant: phantom: breast, or known for the known-answer test
        workers: processes that decode, 0 for one a core; or jobs of a cluster (launcher slurm)
        seed: of splits, of the limit and of a phantom
    """
    settings = {name: value for name, value in locals().items() if name != "tracked"}
    from mammo.data.account import give_account
    from mammo.data.making import make

    plan = _plan(tracked, settings)
    made = make(
        tracked,
        plan.release,
        plan.records,
        plan.preparation,
        plan.about,
        divide=plan.divide,
        synthetic_origin=synthetic_origin,
        warm_up=plan.warm_up,
        workers=workers,
    )
    result = give_account(tracked, made, plan.release, group_by)
    plan.preparation.discard()
    return result


def parts(tracked: Run, settings: Mapping[str, Any]) -> int:
    """Jobs of a cluster that share the images; on one machine `workers` are processes of `run`."""
    if settings["launcher"] == "local" or settings["workers"] == 1:
        return 0
    from mammo.data.intake import chunk_size

    plan = _plan(tracked, settings)  # what it refuses is told before anything is launched
    plan.preparation.open(tracked.work / "datasets")
    count = len(plan.records)
    return min(int(settings["workers"]), -(-count // chunk_size(count)))  # some work for each


def part(tracked: Run, number: int, of: int, **settings: Any) -> None:
    """Prepare the images of part `number`, as many at a time as the job has cores."""
    from mammo.data.intake import prepare_part

    plan = _plan(tracked, settings)
    prepare_part(plan.records, plan.preparation, number, of)


@dataclass(frozen=True)
class _Plan:
    """What is made of a release, before the first image is decoded."""

    release: "Release"
    records: list["Record"]
    preparation: "Preparation"
    about: dict[str, Any]
    divide: Callable[..., "Divided"]
    warm_up: Callable[..., Any] | None


def _plan(tracked: Run, settings: Mapping[str, Any]) -> _Plan:
    """Read the release and refuse what cannot become a dataset."""
    from mammo.data.foreign import all_for_training, generator_of
    from mammo.data.identity import Names, fingerprint, load_salt
    from mammo.data.intake import preparation_of
    from mammo.data.making import none_left, refuse_one_class, unusable
    from mammo.data.partition import partition, take_patients, warm_up
    from mammo.data.prepare import Recipe, depth_of
    from mammo.data.release import select
    from mammo.data.split_file import read_split_file
    from mammo.data.writer import described

    asked = SimpleNamespace(**settings)
    given = _options(vars(asked))
    adapter, task = open_adapter(asked.dataset), task_of(asked.dataset, asked.task)
    if asked.source:
        folder = Path(asked.source).expanduser()
        release = adapter.read(folder, task=task, options=given)
    else:
        folder = _generate(tracked, asked.dataset, given, asked.seed)
        release = adapter.read(folder, task=task, options={})
    select(release, subsets=listed(asked.subset), exclude=listed(asked.exclude))
    positive_class = release.classes.positive
    records = take_patients(release.records, asked.limit, asked.seed, positive=positive_class)
    if asked.strict and release.rejected:
        raise unusable(tracked, release.rejected)
    if not records:
        raise none_left(release, task, folder)
    if not asked.synthetic_origin:  # generated images may be of one class: they go into a mix
        refuse_one_class(records)
    crop = asked.crop if asked.crop != "auto" else getattr(adapter, "CROP", "breast")
    origin = asked.synthetic_origin
    alone = release.notes.get("group", "").startswith("image")
    # the release's own splits stand as they are, even where they tear a scene apart
    clustered = alone and not origin and not any(record.split for record in records)
    if clustered:
        release.notes["group"] = release.notes["group"].replace("image", "near-duplicate cluster")
    recipe = Recipe(
        parse_size(asked.image_size),
        crop,
        asked.intensity,
        depth_of(records),
        fixed_range=grey_range(asked.intensity, asked.fixed_range),
        frames=getattr(adapter, "FRAMES", "refuse") if asked.frames == "auto" else asked.frames,
        for_processing=asked.for_processing,
        exclude=listed(asked.exclude),
        generated=bool(origin),
        look=clustered,
    )
    name = f"{asked.dataset}-{generator_of(origin)[9:]}" if origin else asked.dataset
    names = Names(load_salt(tracked.work), name)
    salt = fingerprint(names.salt, asked.group_by)
    hashed = names.patient if asked.group_by == "patient" else None
    file = Path(asked.split_file).expanduser()
    drawn = functools.partial(
        partition,
        val_fraction=asked.val_fraction,
        test_fraction=asked.test_fraction,
        k_folds=asked.k_folds,
        seed=asked.seed,
        positive=positive_class,
        stratify_by=[part.strip() for part in asked.stratify_by.split(",")],
        assigned=read_split_file(file, salt=salt, hashed=hashed) if asked.split_file else None,
        new_patients=asked.new_patients,
    )
    divide = all_for_training if origin else drawn
    if not (alone and asked.split_file):  # which names only the first of copies, not yet known
        # too few patients for the partition is told now, not after an hour of decoding
        divide(names.groups(records, asked.group_by), [record.split for record in records])
    preparation = preparation_of(
        tracked.folder,
        records,
        recipe,
        names,
        label_kind=release.classes.label_kind,
        group_by=asked.group_by,
        strict=asked.strict,
    )
    about = {
        **described(name, release.classes, preparation.slots.shape, recipe.dtype),
        "intensity": {
            "policy": asked.intensity,
            "scale": SCALES[asked.intensity],
            **({"range": list(recipe.fixed_range)} if recipe.fixed_range else {}),
            **({"raw": ATTENUATION} if asked.for_processing == "log" else {}),
        },
        "split_seed": asked.seed,
        "salt": salt,
        "task": task,
        "source": asked.dataset,
        "group_by": asked.group_by,
        "crop": crop,
        "frames": recipe.frames,
        "exclude": sorted(recipe.exclude),
        **({"synthetic_origin": origin} if origin else {}),
    }
    warm = functools.partial(
        warm_up, negatives=asked.warmup_negatives, positive=positive_class, seed=asked.seed
    )
    return _Plan(
        release,
        records,
        preparation,
        about,
        divide,
        warm if asked.warmup_negatives else None,
    )


def _options(settings: Mapping[str, Any]) -> dict[str, str]:
    """The adapter's options that differ from "not given", as texts."""
    return {name: str(settings[name]) for name, none in OPTIONS.items() if settings[name] != none}


def _generate(tracked: Run, dataset: str, options: Mapping[str, str], seed: int) -> Path:
    """Let the adapter make its release in the work folder, once for each set of options."""
    from mammo.data.making import explained

    made = {**options, "seed": str(seed)}
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    folder = tracked.work / "releases" / f"{dataset}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        open_adapter(dataset).generate(folder, options=made)
    except OSError as error:
        raise explained(error, tracked.work) from None
    return folder
