"""The gates that load a model as it will be loaded, and compare what it says with records."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.dataset import Dataset
from mammo.data.sets import Sets, set_keys
from mammo.errors import DataError
from mammo.evaluation.predictions import views_of
from mammo.promotion.case import Case

BATCHES = (1, 3)  # a batch size that was frozen, or statistics of a batch, show here
Floats = NDArray[np.float64]


def reload(case: Case, *, tolerance: float) -> str:
    """Scores of test images are those that the evaluation recorded."""
    return reloaded(case, case.uri, tolerance=tolerance)


def redraw(case: Case, *, tolerance: float) -> str:
    """Images of the sampled dataset are drawn again."""
    return redrawn(case, case.uri, tolerance=tolerance)


def reloaded(case: Case, uri: str, *, tolerance: float) -> str:
    """Compare the classifier at `uri` with the recorded scores of the first test images."""
    data, frame = case.data, case.predictions
    rows = data.manifest.reset_index().set_index("image_id").loc[frame["image_id"], "index"]
    chosen = rows.to_numpy(np.int64)
    unit = views_of(case.saved.about)
    keys = set_keys(data.manifest.iloc[chosen], unit) if unit else np.arange(len(chosen))
    sets, codes = Sets.of(keys), pd.factorize(keys)[0]
    names = [f"score/{name}" for name in case.saved.classes.names]

    def differ(count: int) -> Floats:
        images, _ = sets.pick(np.arange(min(count, len(sets))))
        params = {"sets": codes[images].tolist()} if unit else {}
        found = served({"images": data.images(chosen[images])}, params)
        recorded = frame.loc[images, names].to_numpy(np.float64)
        return np.asarray(np.abs(np.asarray(found) - recorded))

    served = case.registrar.served(uri)
    return _judged(uri, differ, tolerance, what="scores", made=case.evaluation.run_id)


def redrawn(case: Case, uri: str, *, tolerance: float) -> str:
    """Compare the generator at `uri` with the first images of the dataset sampled from it."""
    from mammo.generators.again import recipe_of
    from mammo.generators.asking import Told
    from mammo.generators.mask_areas import binarized

    (made,) = case.evaluation.inputs["synthetic"]
    drawn = Dataset(case.registrar.dataset(case.registrar.digest_of(made) or made))
    recipe, about = recipe_of(drawn), case.saved.about
    asked = recipe.sampling()
    if asked.pop("guidance_interval") != (0.0, 1.0) or asked.pop("guidance_rescale"):
        raise DataError(
            f"dataset {drawn.name} was sampled with guidance_interval or guidance_rescale, which a "
            "served generator does not take; sample it without them, and evaluate that"
        )
    mine = np.flatnonzero(drawn.manifest["generator_run_id"] == case.run_id)
    told = Told.by(about, recipe.conditions).columns

    def differ(count: int) -> Floats:
        rows = mine[:count]
        lines = drawn.manifest.iloc[rows]
        wishes = {"label": lines["label"].tolist(), "seed": lines["sample_seed"].tolist()}
        wishes |= {name: lines[name].tolist() for name in told}
        if about["asks"]["mask"]:
            wishes["mask"] = [(mask[0] > 0).astype(int).tolist() for mask in drawn.masks(rows)]
        found = served(pd.DataFrame(wishes), asked if about["asks"].get("samplers") else {})
        if about["mode"] == "mask":
            found = binarized(found, recipe.mask_threshold) > 0
        return np.asarray(np.abs(np.asarray(found, np.float64) - drawn.images(rows)))

    served = case.registrar.served(uri)
    return _judged(uri, differ, tolerance, what="pixels", made=drawn.digest)


def _judged(
    uri: str, differ: Callable[[int], Floats], tolerance: float, *, what: str, made: str
) -> str:
    """The largest difference at each batch size, in words; DataError above the tolerance."""
    most: dict[int, Any] = {count: float(differ(count).max()) for count in BATCHES}
    words = ", ".join(f"{most[count]:.2g} at batch {count}" for count in BATCHES)
    if not max(most.values()) <= tolerance:
        raise DataError(
            f"{uri}, loaded again through MLflow, gives other {what} than {made} recorded: they "
            f"differ by {words}; policy allows {tolerance:g}"
        )
    return f"{what} of {uri} as recorded: differences {words}"
