"""The cases worth a look: the most confident right and wrong calls of every class."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from mammo.data.dataset import Dataset
from mammo.data.sets import set_keys
from mammo.evaluation.evidence import Evidence
from mammo.evaluation.ranking import classes_of
from mammo.evaluation.report import Section

Images = NDArray[np.float32]  # (N, C, H, W) in [0, 1]
# Images, class ids (N,) and the other images of each one's set, if any, to maps (N, H, W) in [0, 1]
Look = Callable[[Images, NDArray[np.int64], Sequence[Images]], NDArray[np.float32]]
_CELL = 1.5  # inches


def saliency_evidence(
    data: Dataset,
    predictions: pd.DataFrame,
    look: Look,
    *,
    layer: str,
    count: int,
    views_of: str = "",
) -> Evidence:
    """A figure of `count` cases of each kind, every image beside what spoke for its call.

    `views_of` says whose images the model looks at together; see `predictions.views_of`.
    """
    cases = most_confident(predictions, count)
    rows = pd.Index(data.manifest["image_id"]).get_indexer(cases["image_id"])
    images = data.images(rows)
    ids = np.array([data.classes.id_of(name) for name in cases["called"]], np.int64)
    maps = look(images, ids, _mates(data, predictions, rows, views_of) if views_of else ())
    figure = saliency_figure(cases, images, maps)
    text = (
        "The images that the model called with most confidence, rightly and wrongly, each beside "
        f"its Grad-CAM map for the class it was called ({layer}): red spoke for it. A map shows a "
        "region, coarsely, and is no outline of a lesion."
    )
    if views_of:
        text += f" The call is of all images of the {views_of}, the map of what is in this one."
    caption = "Most confident calls by true class, and what spoke for them"
    return Evidence(
        sections=[Section("Where the model looked", text, {"Cases": cases}, {caption: figure})],
        figures={"saliency": figure},
        tables={"saliency_cases": cases},
    )


def _mates(
    data: Dataset, predictions: pd.DataFrame, rows: NDArray[np.int64], unit: str
) -> list[Images]:
    """The other images that were scored together with each of `rows`."""
    scored = pd.Index(data.manifest["image_id"]).get_indexer(predictions["image_id"].unique())
    keys = pd.Series(set_keys(data.manifest.iloc[scored], unit), index=scored)
    sets = {row: scored[keys.to_numpy() == keys[row]] for row in rows.tolist()}
    return [data.images(of[of != row]) for row, of in sets.items()]


def most_confident(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Up to `count` right and `count` wrong calls of every true class, the surest first.

    An image is called what is most probable. Columns truth, outcome (right, wrong), called, score
    (of the class called) and image_id; in the order of the classes, right before wrong.
    """
    names = classes_of(predictions)
    frame = predictions.drop_duplicates("image_id")
    scores = frame[[f"score/{name}" for name in names]].to_numpy()
    found = pd.DataFrame(
        {
            "truth": frame["label"].to_numpy(),
            "called": np.asarray(names, object)[scores.argmax(axis=1)],
            "score": scores.max(axis=1),
            "image_id": frame["image_id"].to_numpy(),
        }
    )
    found["outcome"] = np.where(found["truth"] == found["called"], "right", "wrong")
    found = found.sort_values(["score", "image_id"], ascending=[False, True], kind="stable")
    parts = [
        found[(found["truth"] == name) & (found["outcome"] == outcome)].head(count)
        for name in names
        for outcome in ("right", "wrong")
    ]
    columns = ["truth", "outcome", "called", "score", "image_id"]
    return pd.concat(parts, ignore_index=True)[columns]


def saliency_figure(
    cases: pd.DataFrame, images: NDArray[np.float32], maps: NDArray[np.float32]
) -> Figure:
    """A row a kind of case; each image (its first channel) beside itself under its map."""
    kinds = list(dict.fromkeys(zip(cases["truth"], cases["outcome"], strict=True)))
    most = int(cases.groupby(["truth", "outcome"], sort=False).size().max())
    height, width = images.shape[2:]
    size = (2 * _CELL * most * width / height + 0.4, (_CELL + 0.2) * len(kinds) + 0.1)
    close = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=size, layout=close, facecolor="white")
    grid: Any = figure.subplots(len(kinds), 2 * most, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for row, (truth, outcome) in enumerate(kinds):
        grid[row, 0].set_ylabel(f"{truth}, {outcome}", fontsize=9)
        here = np.flatnonzero((cases["truth"] == truth) & (cases["outcome"] == outcome))
        for place, case in enumerate(here):
            pair: Sequence[Any] = grid[row, 2 * place : 2 * place + 2]
            for axes in pair:
                axes.imshow(images[case, 0], cmap="gray", vmin=0, vmax=1)
            pair[1].imshow(maps[case], cmap="jet", vmin=0, vmax=1, alpha=0.6 * maps[case])
            said = f"{cases['called'][case]} {cases['score'][case]:.2f}"
            pair[0].set_title(said, fontsize=8, loc="left")
    return figure
