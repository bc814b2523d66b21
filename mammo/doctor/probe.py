"""Probes for shortcuts: how well the class is told without looking at the breast."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from mammo.data.checks import NOTE, WARNING, Finding, geometry
from mammo.evaluation.ranking import bootstrap_auc, frame_auc
from mammo.seeds import derive

FIRES = 0.6  # lower end of the interval from which a probe is a confound
FOLDS = 5
REPEATS = 2  # of the folds, drawn anew: one draw alone moves the AUC by its own luck
DRAWS = 500
# The models of K folds share training patients, so their scores vary together more than the
# bootstrap can see: sqrt((1/K + 1/(K-1)) / (1/K)) (Nadeau & Bengio 2003), 1.5 for 5 folds.
WIDER = ((1 / FOLDS + 1 / (FOLDS - 1)) * FOLDS) ** 0.5
_LARGEST = 20_000  # images that a probe looks at; whole patients are drawn
_FEWEST = 10  # patients of the rarer class, without which nothing can be learned
_PIXELS = 100  # features above which they are pixels
_VALUES = 20  # commonest values of a column that get a feature of their own


@dataclass(frozen=True)
class Probe:
    """How well one kind of feature tells the class, on patients not trained on."""

    name: str  # metadata, background or thumbnails
    features: int
    images: int
    auc: float  # nan where it could not be measured
    low: float  # 95 % interval, patients drawn with replacement
    high: float
    why_not: str = ""  # the reason for nan

    def findings(self) -> list[Finding]:
        """A warning, or a note for thumbnails, where signal is expected."""
        if not self.low > FIRES:
            return []
        real = self.name == "thumbnails"
        text = (
            f"{self.name} alone tell the class with AUC {self.auc:.3f} "
            f"(95 % interval {self.low:.3f} to {self.high:.3f}, {self.features} features)"
            + ("; at this size a real difference may show too" if real else "")
        )
        return [Finding(NOTE if real else WARNING, f"{self.name} probe", text, self.images)]


def metadata_features(
    frame: pd.DataFrame, *, task: str, cropped: bool, stretched: bool
) -> pd.DataFrame:
    """Features (N, F) that say where and how an image was made, and nothing of the breast.

    Out of it stay what a reader or the label itself decides (BI-RADS, density, findings, masks),
    and age, which is a risk and no artefact. Pixel size counts only where the picture is whole:
    cropping makes it a measure of the breast. The file's grey limits count only where the
    header sets them: stretched ones measure the breast's brightness. View counts unless it is
    the class.
    """
    known = frame.assign(geometry=geometry(frame))
    words = ["vendor", "subset", "geometry", "laterality", *(["view"] if task != "view" else [])]
    columns = [_one_hot(known[name].astype(str), name) for name in words]
    columns.append(frame["flags"].str.get_dummies(sep=";").add_prefix("flag ").astype(float))
    numbers = ["file_bits", "file_height", "file_width"]
    numbers += [] if cropped else ["pixel_mm"]
    numbers += [] if stretched else ["grey_low", "grey_high"]
    columns.append(frame[numbers].astype(float))
    images = frame.groupby("group_id")["image_id"].transform("size")
    exams = frame.groupby(["group_id", "exam_id"])["image_id"].transform("size")
    counts = {"images of the patient": images, "images of the exam": exams}
    if task != "view":
        counts["views of the patient"] = frame.groupby("group_id")["view"].transform("nunique")
    columns.append(pd.DataFrame(counts, index=frame.index).astype(float))
    return _varying(pd.concat(columns, axis=1))


def background_features(
    frame: pd.DataFrame, borders: NDArray[np.float32], *, cropped: bool
) -> pd.DataFrame:
    """Features (N, F) from outside the breast: the file's, and the border of a whole picture."""
    stored = pd.DataFrame(borders, index=frame.index).add_prefix("border ")
    said = frame[["background", "marks"]].astype(float)
    return _varying(said if cropped else pd.concat([said, stored], axis=1))


def probe(
    name: str, features: pd.DataFrame, frame: pd.DataFrame, positive: str, *, seed: int = 0
) -> Probe:
    """AUC of a simple model on `features` (rows as in `frame`), cross-validated by patient.

    Boosted stumps for few features, which may be categories; logistic regression for many,
    which are pixels. With more than two classes the AUC is the mean over classes.
    """
    chosen = _some_patients(frame, seed)
    frame, features = frame[chosen], features[chosen]
    fewest = int(frame.groupby("label")["group_id"].nunique().min())
    if frame["label"].nunique() < 2 or fewest < _FEWEST:
        return _without(name, features, f"a class has fewer than {_FEWEST} patients")
    if not features.shape[1]:
        return _without(name, features, "nothing of it varies in this dataset")
    scored = _predict(features, frame, seed)
    classes = set(frame["label"])
    positive = positive if positive in classes else min(classes)
    value = frame_auc(scored, positive)
    ends = bootstrap_auc(scored, positive, draws=DRAWS, seed=seed)
    low, high = (float(np.clip(value + WIDER * (end - value), 0, 1)) for end in ends)
    return Probe(name, features.shape[1], len(frame), value, low, high)


def _predict(features: pd.DataFrame, frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Scores of every image by models that saw none of its patient's, mean over REPEATS."""
    from sklearn.model_selection import StratifiedGroupKFold

    values = features.to_numpy(np.float64)
    labels, groups = frame["label"].to_numpy(str), frame["group_id"].to_numpy(str)
    classes = sorted(set(labels))
    scores = np.zeros((len(frame), len(classes)))
    for repeat in range(REPEATS):
        state = derive(seed, "probe", repeat) % 2**32
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=state)
        for train, held in folds.split(values, labels, groups):
            model = _model(values.shape[1], state)
            model.fit(values[train], labels[train])
            columns = [classes.index(each) for each in model.classes_]
            found = model.predict_proba(values[held])
            # ranks within the fold: models of different folds need not share a scale
            scores[np.ix_(held, columns)] += rankdata(found, axis=0) / (len(held) + 1)
    keys = frame[["image_id", "group_id", "label"]].reset_index(drop=True)
    named = pd.DataFrame(scores / REPEATS, columns=[f"score/{each}" for each in classes])
    return pd.concat([keys, named], axis=1)


def _model(features: int, state: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if features <= _PIXELS:
        return HistGradientBoostingClassifier(
            max_iter=40, max_depth=2, learning_rate=0.1, min_samples_leaf=10,
            early_stopping=False, random_state=state,
        )  # fmt: skip
    return make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))


def _some_patients(frame: pd.DataFrame, seed: int) -> NDArray[np.bool_]:
    """Rows of as many patients as fit into _LARGEST images, drawn by their hashed ids."""
    if len(frame) <= _LARGEST:
        return np.ones(len(frame), bool)
    sizes = frame.groupby("group_id").size()
    drawn = np.random.default_rng(derive(seed, "probe", "patients")).permutation(len(sizes))
    taken = sizes.index[drawn[np.cumsum(sizes.to_numpy()[drawn]) <= _LARGEST]]
    return np.asarray(frame["group_id"].isin(taken))


def _without(name: str, features: pd.DataFrame, reason: str) -> Probe:
    nan = float("nan")
    return Probe(name, features.shape[1], 0, nan, nan, nan, reason)


def _one_hot(values: pd.Series, name: str) -> pd.DataFrame:
    common = values[values != ""].value_counts().index[:_VALUES]
    return pd.DataFrame({f"{name} {each}": (values == each).astype(float) for each in common})


def _varying(features: pd.DataFrame) -> pd.DataFrame:
    """Only the columns that take two values or more; what is not known is a value too."""
    return features.loc[:, features.nunique(dropna=False) > 1]
