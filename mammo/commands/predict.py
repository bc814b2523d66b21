"""`mammo predict MODEL FOLDER`: what a classifier says of new images, as a CSV."""

import json as jsons
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mammo.classifiers.newcomers import PATIENTS
from mammo.commands import call, folder_of
from mammo.errors import ConfigError, DataError
from mammo.settings import Count, PositiveInt, one_of

if TYPE_CHECKING:
    import pandas as pd

    from mammo.classifiers import Classifier

    Patients = str
else:
    Patients = one_of(PATIENTS)

LOG = logging.getLogger("mammo")
_HOW = {
    "headers": "told apart by the headers' PatientID, which is not written: they are numbered",
    "folders": "told apart by sub-folder",
    "none": "neither headers nor sub-folders were to tell them apart",
}


def command(arguments: Sequence[str]) -> int:
    return call("predict", run, arguments)


def run(
    model: str,
    folder: str,
    *,
    output: str = "predictions.csv",
    operating: str = "balanced",
    patients: Patients = "auto",
    channels: str = "",
    device: str = "auto",
    batch_size: PositiveInt = 32,
    workers: Count = 1,
    json: bool = False,
) -> int:
    """Score the images of FOLDER (DICOM, PNG, TIFF, NIfTI; or one file) with the classifier MODEL.

    They are prepared as those that the model was trained on. The CSV --output has a row a file: a
    probability for each class, the uncertainty where the model has learned one, the decision at
    the model's threshold --operating (balanced, f1, specificity_0.9 and others that it holds), the
    same for the patient over all their images, and the reason where a file was not scored. A model
    of several views gives all images of a patient, or of a breast, the same score, and tells how
    much attention each got where it has learned that. --patients tells whose an image is: headers
    (PatientID of DICOM, written as a running number alone), folders (the sub-folder), none; auto
    takes the first that tells it of every file. --channels, for a model of several, are the ends
    of the names of the files that are one image, as _low,_subtracted. --json true prints the
    summary as JSON. The exit code is 0, or 2 when a file could not be read; the others are scored
    all the same.
    """
    target = _target(output)
    place = Path(folder).expanduser()
    if not place.exists():
        raise DataError(f"folder {folder} does not exist; give a folder of images, or one image")
    import pandas as pd

    from mammo.classifiers import load_classifier
    from mammo.classifiers.newcomers import (
        find,
        joined,
        recipe_of,
        refuse_channels,
        score,
        told_apart,
    )

    ends = [each.strip() for each in channels.split(",") if each.strip()]
    images = find(place, channels=ends)
    classifier = load_classifier(folder_of(model, "model", "model"), device=device)
    threshold = _threshold(classifier, operating)
    recipe = recipe_of(classifier.saved)
    refuse_channels(ends, classifier.shape[0])
    whose, how = told_apart(images, patients)
    known = len(set(whose) - {""})
    who = f"{known} patients" if known else "patients unknown"
    LOG.info("predict: %d images, %s (%s)", len(images), who, _HOW[how])
    keys = joined(images, whose, classifier.views_of)
    alone = sum(key.startswith("image ") for key in keys)
    if classifier.views_of and alone:
        LOG.warning(
            "predict: the model looks at all images of a %s at once, and nothing tells whose %d "
            "of %d images are; each of these is scored alone",
            *(classifier.views_of, alone, len(images)),
        )
    sizes = {"workers": workers, "batch_size": batch_size}
    frame = score(classifier, images, recipe, keys=keys, **sizes)
    frame.insert(1, "patient", pd.Series(whose, dtype=object))
    _write(target, _decided(frame, classifier, threshold))
    refused = int(frame["refused"].sum())
    scored = int((frame["reason"] == "").sum())
    told = {
        "output": str(target),
        "model": classifier.saved.digest,
        "images": len(frame),
        "scored": scored,
        "left_out": len(frame) - scored - refused,
        "refused": refused,
        "patients": known,
        "patients_by": how,
        "operating": operating,
        "threshold": threshold,
    }
    print(jsons.dumps(told) if json else _sentence(told), flush=True)
    if refused:
        raise DataError(
            f"{refused} of {len(frame)} images could not be read; column reason of {target} says "
            "why of each"
        )
    return 0


def _target(output: str) -> Path:
    """Where the CSV goes; ConfigError now and not after an hour of scoring."""
    path = Path(output).expanduser()
    parent = path.absolute().parent
    if os.path.lexists(path):
        raise ConfigError(f"output {output} exists already; name a new file")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"output {output}: {parent} is no folder to write to; make it first")
    return path


def _threshold(classifier: "Classifier", operating: str) -> float:
    known = classifier.thresholds
    if operating not in known:
        raise ConfigError(
            f"operating {operating!r} is no operating point of the model; choose "
            f"{', '.join(sorted(known))}"
        )
    return known[operating]


def _decided(frame: "pd.DataFrame", classifier: "Classifier", threshold: float) -> "pd.DataFrame":
    """The columns of the CSV: decisions by image and by patient beside the scores."""
    import pandas as pd

    from mammo.evaluation.predictions import TOLD
    from mammo.evaluation.ranking import aggregate

    positive, names = classifier.classes.positive, classifier.classes.names
    scores = [f"score/{name}" for name in names]
    told = frame.assign(decision=_decisions(frame, classifier, threshold))
    known = told[(told["reason"] == "") & (told["patient"] != "")]
    # `aggregate` also joins the labels, which nobody knows here
    rows = known.assign(group_id=known["patient"], image_id=known["file"], label=names[0])
    how = classifier.aggregate if len(rows) else "none"  # which says nothing of a patient
    joined = aggregate(rows, positive, how) if how != "none" else pd.DataFrame()
    columns = [f"patient_{name}" for name in [*scores, "decision"]]
    if len(joined):
        joined["decision"] = _decisions(joined, classifier, threshold)
        joined = joined.rename(columns={name: f"patient_{name}" for name in [*scores, "decision"]})
        found = joined.set_index("group_id")[columns]
        told = told.join(found, on="patient")
    else:
        told = told.reindex(columns=[*told.columns, *columns])
    more = [name for name in TOLD if name in told]
    return told[["file", "patient", *scores, *more, "decision", *columns, "reason"]]


def _decisions(frame: "pd.DataFrame", classifier: "Classifier", threshold: float) -> list[str]:
    """The positive class from `threshold` on, below it the most probable other; "" unscored."""
    positive = classifier.classes.positive
    others = [name for name in classifier.classes.names if name != positive]
    rest = frame[[f"score/{name}" for name in others]].fillna(0.0).to_numpy().argmax(axis=1)
    return [
        "" if score != score else positive if score >= threshold else others[place]
        for score, place in zip(frame[f"score/{positive}"], rest, strict=True)
    ]


def _write(path: Path, frame: "pd.DataFrame") -> None:
    """Write the CSV beside its place, then rename it there when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        # nine digits are a float32 to the bit; a name need not be UTF-8
        frame.to_csv(partial, index=False, float_format="%.9g", errors="surrogateescape")
        partial.replace(path)
    except OSError as error:
        raise DataError(f"output {path} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def _sentence(told: dict[str, object]) -> str:
    return (
        "{output}: {scored} of {images} images scored, {left_out} left out as in training, "
        "{refused} unreadable; {patients} patients".format(**told)
    )
