"""preprocess: images on disk become a dataset, split by patient and free of names."""

import errno
import functools
import hashlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.data.release import FLAGS, STRATA
from mammo.data.sources import ADAPTERS, check_request, open_adapter
from mammo.errors import ConfigError, DataError
from mammo.run import Result, Run
from mammo.settings import Count, Fraction, NonNegativeFloat, one_of

LOG = logging.getLogger("mammo")
# What 0 and 1 stand for, written into the dataset so that synthetic images can be mapped back.
SCALES = {
    "header": "output range of the header's modality and VOI transform; full depth without one",
    "percentile": "0.5 and 99.5 percentile of the breast's pixels",
    "fixed": "fixed_range, in the file's units after its modality transform",
    "none": "full range of the stored bits, VOI left out",
}
_DIM = 0.25  # a brightest pixel below it looks like 12 bits stored in 16, which reach 0.06

if TYPE_CHECKING:
    from mammo.data.checks import Finding
    from mammo.data.dataset import Dataset
    from mammo.data.intake import Intake
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
    parse_size(str(settings["image_size"]))
    _check_grey(str(settings["intensity"]), str(settings["fixed_range"]))
    unknown = sorted(_listed(str(settings["exclude"])) - set(FLAGS))
    if unknown:
        raise ConfigError(f"exclude {unknown[0]!r} is no flag; choose of {', '.join(FLAGS)}")
    stratify = [part.strip() for part in str(settings["stratify_by"]).split(",")]
    strange = sorted(set(stratify) - set(STRATA))
    if strange:
        raise ConfigError(f"stratify_by {strange[0]!r}; choose of {', '.join(STRATA)}")
    if settings["k_folds"] == 1:
        raise ConfigError("k_folds 1 is no cross-validation; give 2 or more, or 0 for a hold-out")
    if settings["val_fraction"] + settings["test_fraction"] >= 1:
        raise ConfigError(
            f"val_fraction {settings['val_fraction']:g} and test_fraction "
            f"{settings['test_fraction']:g} leave nothing to train on; their sum must be below 1"
        )
    if settings["synthetic_origin"]:
        from mammo.data.foreign import check_foreign

        check_foreign(settings)
    file = str(settings["split_file"])
    if file and not Path(file).expanduser().is_file():
        raise DataError(f"split_file {file} does not exist")


def source_digest(settings: Mapping[str, Any]) -> str:
    """Digest of what the folder and the split file hold now: other files are another run.

    Files are told apart by name, size and time of change; reading a release would take hours.
    """
    digest = hashlib.sha256()
    if settings["source"]:
        root = Path(settings["source"]).expanduser()
        for path in sorted(each for each in root.rglob("*") if each.is_file()):
            if any(part.startswith(".") for part in path.relative_to(root).parts):
                continue  # no adapter reads it, and our own work folder may be there
            said = path.stat()
            text = f"{path.relative_to(root)}\0{said.st_size}\0{said.st_mtime_ns}\n"
            digest.update(text.encode(errors="surrogateescape"))
    if settings["split_file"]:
        digest.update(Path(settings["split_file"]).expanduser().read_bytes())
    return digest.hexdigest()


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
        workers: processes that decode; 0 for one a core
        seed: of splits, of the limit and of a phantom
    """
    from mammo.data.checks import check_rows
    from mammo.data.duplicates import grouped_by_scene
    from mammo.data.foreign import all_for_training, generator_of, mark_synthetic
    from mammo.data.identity import Names, fingerprint, load_salt
    from mammo.data.intake import preparation_of, take_in
    from mammo.data.partition import partition, take_patients, warm_up
    from mammo.data.prepare import Recipe, depth_of
    from mammo.data.release import select
    from mammo.data.split_file import read_split_file
    from mammo.data.writer import described, digest_of, seal

    given = _options(locals())
    adapter = open_adapter(dataset)
    folder = Path(source).expanduser() if source else _generate(tracked, dataset, given, seed)
    release = adapter.read(folder, task=task, options=given if source else {})
    select(release, subsets=_listed(subset), exclude=_listed(exclude))
    positive_class = release.classes.positive
    records = take_patients(release.records, limit, seed, positive=positive_class)
    if not records:
        raise DataError(f"no images for task {task!r} in {folder}")
    if strict and release.rejected:
        raise _unusable(tracked, release.rejected)
    crop = getattr(adapter, "CROP", "breast") if crop == "auto" else crop
    recipe = Recipe(
        parse_size(image_size),
        crop,
        intensity,
        depth_of(records),
        fixed_range=_check_grey(intensity, fixed_range),
        frames=getattr(adapter, "FRAMES", "refuse") if frames == "auto" else frames,
        for_processing=for_processing,
        exclude=_listed(exclude),
    )
    name = f"{dataset}-{generator_of(synthetic_origin)[9:]}" if synthetic_origin else dataset
    names = Names(load_salt(tracked.work), name)
    salt = fingerprint(names.salt, group_by)
    hashed = names.patient if group_by == "patient" else None
    file = Path(split_file).expanduser()
    drawn = functools.partial(
        partition,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        k_folds=k_folds,
        seed=seed,
        positive=positive_class,
        stratify_by=[part.strip() for part in stratify_by.split(",")],
        assigned=read_split_file(file, salt=salt, hashed=hashed) if split_file else None,
        new_patients=new_patients,
    )
    divide = all_for_training if synthetic_origin else drawn
    alone = release.notes.get("group", "").startswith("image")
    # the release's own splits stand as they are, even where they tear a scene apart
    clustered = alone and not synthetic_origin and not any(record.split for record in records)
    if clustered:
        release.notes["group"] = release.notes["group"].replace("image", "near-duplicate cluster")
    if not (alone and split_file):  # which names only the first of copies, not yet known
        # too few patients for the partition is told now, not after an hour of decoding
        divide(names.groups(records, group_by), [record.split for record in records])
    preparation = preparation_of(
        tracked.folder,
        records,
        recipe,
        names,
        label_kind=release.classes.label_kind,
        group_by=group_by,
        strict=strict,
    )
    slots, datasets = preparation.slots, tracked.work / "datasets"
    about = {
        **described(name, release.classes, slots.shape, slots.dtype),
        "intensity": {
            "policy": intensity,
            "scale": SCALES[intensity],
            **({"range": list(recipe.fixed_range)} if recipe.fixed_range else {}),
        },
        "split_seed": seed,
        "salt": salt,
        "task": task,
        "source": dataset,
        "group_by": group_by,
        "crop": crop,
        **({"synthetic_origin": synthetic_origin} if synthetic_origin else {}),
    }
    started = time.monotonic()
    try:
        preparation.open(datasets)
        before = preparation.journal.decoded
        intake = take_in(records, preparation, workers=workers)
        rejected = release.rejected + intake.refused
        if intake.refused and (strict or not intake.kept):
            raise _unusable(tracked, rejected)
        decoded = preparation.journal.decoded
        rate = (decoded - before) / (time.monotonic() - started)
        release.left_out.update(intake.left_out)
        frame = intake.frame
        if synthetic_origin:
            mark_synthetic(frame, synthetic_origin)
        elif clustered:
            sealed = datasets / preparation.journal.sealed
            pixels = slots.folder if slots.folder.is_dir() else sealed
            frame["group_id"] = grouped_by_scene(frame, pixels)
        divided = divide(frame, [record.split for record in intake.kept])
        frame[["split", "fold"]] = divided.rows
        if warmup_negatives:
            asked = {"negatives": warmup_negatives, "positive": positive_class, "seed": seed}
            frame["warmup"] = warm_up(frame, **asked)
        found = check_rows(frame, release.classes.names)
        _refuse_fatal(found)
        preparation.journal.sealing(digest_of(frame, about))
        data = seal(slots.folder, datasets, frame, release.classes, about)
    except (DataError, OSError) as error:  # the user changes something: another run
        preparation.discard()
        raise _explained(error, tracked.work) from None
    _keep_names(tracked, data, intake.kept)
    _say(tracked, data, release, intake, group_by)
    _say_splits(tracked, data, divided)
    _say_findings(tracked, found)
    speed = {"images_per_second": rate, "images_decoded": float(decoded)}
    result = _report(tracked, data, intake, rejected, speed)
    preparation.discard()
    return result


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of `128` or `256x128`."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 8 <= int(part) <= 8192 for part in parts):
        raise ConfigError(f"image_size {text!r}: give a side or HxW, each from 8 to 8192 pixels")
    return int(parts[0]), int(parts[-1])


def _check_grey(intensity: str, fixed_range: str) -> tuple[float, float] | None:
    """The two ends of `fixed_range`, which belongs to intensity fixed alone."""
    if (intensity == "fixed") != bool(fixed_range):
        raise ConfigError(
            f"intensity {intensity} and fixed_range {fixed_range!r}: give fixed_range, as 0,4095, "
            "with intensity fixed and with no other"
        )
    if not fixed_range:
        return None
    try:
        low, high = (float(part) for part in fixed_range.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"fixed_range {fixed_range!r}: two rising numbers are needed, as 0,4095")
    return low, high


def _listed(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def _options(settings: Mapping[str, Any]) -> dict[str, str]:
    """The adapter's options that differ from "not given", as texts."""
    return {name: str(settings[name]) for name, none in OPTIONS.items() if settings[name] != none}


def _generate(tracked: Run, dataset: str, options: Mapping[str, str], seed: int) -> Path:
    """Let the adapter make its release in the work folder, once for each set of options."""
    made = {**options, "seed": str(seed)}
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    folder = tracked.work / "releases" / f"{dataset}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        open_adapter(dataset).generate(folder, options=made)
    except OSError as error:
        raise _explained(error, tracked.work) from None
    return folder


def _unusable(tracked: Run, rejected: list[tuple[str, str]]) -> DataError:
    """The error for images that cannot be used; their names go to the private folder alone."""
    path = _list_privately(tracked, rejected)
    return DataError(
        f"an image cannot be used: {rejected[0][1]}; its name is in {path}; "
        "mend or remove it, or leave such images out with --strict false"
    )


def _list_privately(tracked: Run, rejected: list[tuple[str, str]]) -> Path:
    from mammo.data.identity import write_private

    return write_private(
        tracked.work, f"rejected-{tracked.id}.csv", ("file", "reason"), sorted(rejected)
    )


def _explained(error: DataError | OSError, work: Path) -> Exception:
    """A full disk as one line for the user; any other error as it is."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"the disk of {work} is full; free space there or choose another --work_dir "
            "(what was half written has been removed)"
        )
    return error


def _keep_names(tracked: Run, data: "Dataset", kept: "list[Record]") -> None:
    """Write who is who to the private folder, for the owner of the release."""
    from mammo.data.identity import write_private

    ids = data.manifest[["group_id", "exam_id", "image_id"]].itertuples(index=False)
    rows = [
        (*known, record.patient, record.exam, record.image, ";".join(map(str, record.paths)))
        for known, record in zip(ids, kept, strict=True)
    ]
    columns = ("group_id", "exam_id", "image_id", "patient", "exam", "image", "files")
    write_private(tracked.work, f"ids-{data.digest}.csv", columns, rows)


def _say(
    tracked: Run, data: "Dataset", release: "Release", intake: "Intake", group_by: str
) -> None:
    """Tell what a reader of the run must know: how patients were told apart, what looks wrong."""
    from mammo.data.partition import RISKS

    notes = {"group": group_by, **release.notes}
    if "synthetic_origin" in data.about:
        notes["group"] = "none (generated images, each alone)"
    if release.left_out:
        counted = [f"{count} {reason}" for reason, count in sorted(release.left_out.items())]
        notes["left_out"] = ", ".join(filter(None, [notes.get("left_out"), *counted]))
    tracked.tags({f"mammo.{name}": text for name, text in notes.items()})
    for name, text in notes.items():
        LOG.info("preprocess: %s: %s", name, text)
    if group_by in RISKS:
        LOG.warning("preprocess: %s", RISKS[group_by])
    if intake.disagreements:
        LOG.warning(
            "preprocess: the chest wall of %d of %d images is not at the side that header or "
            "laterality tell; the pixels were followed (tables/orientation.csv)",
            intake.disagreements,
            len(data),
        )
    if intake.peak < _DIM and data.about["intensity"]["policy"] != "percentile":
        LOG.warning(
            "preprocess: the brightest pixel is %.3f of the range; a smaller depth in bigger "
            "words? --intensity percentile uses the whole range",
            intake.peak,
        )


def _refuse_fatal(found: "list[Finding]") -> None:
    from mammo.data.checks import FATAL

    fatal = [finding for finding in found if finding.severity == FATAL]
    if fatal:
        raise DataError(f"{fatal[0].name}: {fatal[0].text}")


def _say_findings(tracked: Run, found: "list[Finding]") -> None:
    """Warn of what the cheap checks found; `mammo doctor` looks at the pictures too."""
    from mammo.data.checks import WARNING, findings_table

    for finding in found:
        if finding.severity == WARNING:
            LOG.warning("preprocess: %s: %s", finding.name, finding.text)
    tracked.table("findings", findings_table(found))


def _say_splits(tracked: Run, data: "Dataset", divided: "Divided") -> None:
    """Tell what a reader of the splits must know; the file that another run can follow."""
    from mammo.data.partition import warm_up_table
    from mammo.data.split_file import write_split_file

    for note in divided.notes:
        LOG.warning("preprocess: %s", note)
    if len(divided.missing):
        tracked.table("missing_patients", divided.missing)
    frame = data.manifest
    if frame["warmup"].any():
        tracked.table("warmup", warm_up_table(frame, positive=data.classes.positive))
    write_split_file(frame, tracked.folder / "splits.csv", salt=data.about["salt"])
    tracked.artifacts(tracked.folder / "splits.csv")


def _report(
    tracked: Run,
    data: "Dataset",
    intake: "Intake",
    rejected: list[tuple[str, str]],
    speed: Mapping[str, float],
) -> Result:
    import pandas as pd
    from PIL import Image

    from mammo.data.sheet import contact_sheet

    frame = data.manifest
    metrics = {
        "images": float(len(frame)),
        "patients": float(frame.loc[~frame["is_synthetic"], "group_id"].nunique()),
        "rejected": float(len(rejected)),
        **{f"count/{name}": float((frame["label"] == name).sum()) for name in data.classes.names},
        **speed,
    }
    tracked.metrics(metrics)
    by = ["split", "fold", "label"]
    counts = frame.groupby(by)["group_id"].agg(images="size", patients="nunique").reset_index()
    tracked.table("splits", counts)
    walls = [(*key, count) for key, count in sorted(intake.walls.items())]
    columns = ["laterality", "view", "expected_wall", "seen_wall", "images"]
    tracked.table("orientation", pd.DataFrame(walls, columns=columns))
    reasons = sorted(Counter(reason for _, reason in rejected).items())
    tracked.table("rejected", pd.DataFrame(reasons, columns=["reason", "images"]))
    if rejected:
        path = _list_privately(tracked, rejected)
        LOG.warning("preprocess: %d images left out; their names are in %s", len(rejected), path)
    Image.fromarray(contact_sheet(data)).save(tracked.folder / "preview.png")
    tracked.artifacts(tracked.folder / "preview.png")
    tracked.artifacts(data.folder, "dataset")
    return Result({"dataset": tracked.uri("dataset")}, metrics, data.digest)
