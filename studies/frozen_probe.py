"""The yardstick of a fine-tuned classifier: logistic regression on a network's frozen features.

    python studies/frozen_probe.py --data <dataset> --extractor <name@weights> --output <folder>

The folds are the dataset's own; each is scored by a regression on all the others, standardized on
them, its penalty chosen among them by patient. Writes predictions.parquet, which `mammo compare`
takes as a baseline: the same row for every seed, for nothing here is drawn.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mammo
from mammo.classifiers.scores import predictions
from mammo.data.dataset import Dataset
from mammo.data.splits import fold_numbers
from mammo.evaluation.extractors import load_extractor
from mammo.evaluation.ranking import aggregate, class_aucs, frame_auc

PENALTIES = {"logisticregression__C": list(np.logspace(-5, 0, 6))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--extractor", default="random")
    parser.add_argument("--seeds", default="0,1,2", help="under which the rows are written")
    parser.add_argument("--aggregate", default="mean", help="from images to patient")
    parser.add_argument("--output", required=True)
    asked = parser.parse_args()
    data, extractor = mammo.open_dataset(asked.data), load_extractor(asked.extractor)
    rows = np.flatnonzero(data.manifest["fold"] >= 0)
    features = np.zeros((len(data), extractor.dim))
    features[rows] = extractor.features(data.images, rows, device="cpu")
    folds = [scored(data, features, rows, number) for number in fold_numbers(data)]
    every = pd.concat(folds, ignore_index=True)
    place = Path(asked.output)
    place.mkdir(parents=True, exist_ok=True)
    seeds = [every.assign(seed=int(seed)) for seed in asked.seeds.split(",")]
    pd.concat(seeds, ignore_index=True).to_parquet(place / "predictions.parquet", index=False)
    positive = data.classes.positive
    patients = aggregate(every, positive, asked.aggregate)
    print(f"{extractor.name}: oof/auc {frame_auc(patients, positive):.4f}", end="")
    several = len(data.classes.names) > 2
    for name, value in class_aucs(patients).items() if several else ():
        print(f", {name} {value:.4f}", end="")
    print()


def scored(
    data: Dataset, features: NDArray[np.float64], rows: NDArray[np.int64], number: int
) -> pd.DataFrame:
    """Predictions of fold `number` by a regression on the `rows` of the others."""
    fold = data.manifest["fold"].to_numpy()[rows]
    others, held = rows[fold != number], rows[fold == number]
    labels, groups = data.label_ids(), data.manifest["group_id"].to_numpy(str)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        PENALTIES,
        scoring="roc_auc_ovr",
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
    )
    search.fit(features[others], labels[others], groups=groups[others])
    scores = search.predict_proba(features[held])
    return predictions(data, held, scores, split="scored", fold=number, seed=0)


if __name__ == "__main__":
    main()
