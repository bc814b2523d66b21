"""A sweep on real images: which real_percentage, loss and sampler, and what the winner is worth.

    python studies/sweep.py [--trials 36] [--workers 2] [--storage URL]

The commands of a user: preprocess BUSI at 64 px, train a generator on its training patients, draw
images of both classes, and tune a small classifier on the inner validation images; the best
settings are trained again on fresh seeds. Runs go to the tracking server that MLFLOW_TRACKING_URI
names. With --data and --synthetic a finished dataset and finished images are used.
"""

import argparse
import time

from learning import BUSI, MOBILENET, call

DATA = {**BUSI, "task": "malignancy2", "val_fraction": 0.2}
GENERATOR = {"epochs": 120, "patch": 2}
CLASSIFIER = {
    "model_name": "torchvision/mobilenet_v2",
    "weights": MOBILENET.partition("@")[2],
    "epochs": 12,
    "batch_size": 32,
}
FINALISTS = {"finalists": 3, "finalist_seeds": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=36)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--storage", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--synthetic", default="")
    parser.add_argument("--count", type=int, default=600, help="synthetic images")
    asked = parser.parse_args()
    data = asked.data or call("preprocess", DATA)["run_id"]
    synthetic = asked.synthetic or drawn(data, asked.count)
    start = time.monotonic()
    settings = {f"train_classifier.{name}": value for name, value in CLASSIFIER.items()}
    found = call(
        "tune",
        {
            "data": data,
            "synthetic": synthetic,
            "n_trials": asked.trials,
            "workers": asked.workers,
            "study_name": "busi",
            "storage": asked.storage,
            **FINALISTS,
            **settings,
        },
    )
    print(f"tune took {(time.monotonic() - start) / 60:.0f} min; run {found['run_id']}")
    for name, value in sorted(found["metrics"].items()):
        print(f"| {name} | {value:.4g} |")


def drawn(data: str, count: int) -> str:
    """Images of a generator that has seen the training patients of `data` alone."""
    trained = call("train_generator", {"data": data, **GENERATOR})["run_id"]
    return str(call("sample", {"generator": trained, "count": count})["run_id"])


if __name__ == "__main__":
    main()
