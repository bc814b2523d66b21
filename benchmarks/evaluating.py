"""Time and peak memory of judging many predictions, against the loop over draws that people write.

    python benchmarks/evaluating.py --images 100000 --draws 2000

Four images a patient, two a breast; every metric at all three levels with its interval. The loop
resamples patients and asks scikit-learn for the AUC, and is timed on a few draws.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from mammo.evaluation.panel import Asked
from mammo.evaluation.ranking import aggregate, bootstrap_auc
from mammo.evaluation.verdict import choose, judge

LOOPED = 20  # draws that the loop is timed on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--prevalence", type=float, default=0.05)
    parser.add_argument("--classes", type=int, default=2)
    asked = parser.parse_args()
    validation, test = (predictions(asked, seed) for seed in (0, 1))
    before = peak_mib()
    start, used = time.perf_counter(), time.process_time()
    choice = choose(validation, "c1", aggregate="mean", specificity=0.9)
    verdict = judge(test, choice, Asked("c1"), aggregate="mean", draws=asked.draws, seed=0)
    whole, used = time.perf_counter() - start, time.process_time() - used
    print(f"{len(test)} images of {test['group_id'].nunique()} patients, {asked.draws} draws")
    print(
        f"{len(verdict.table)} metrics with intervals: {whole:.1f} s, {used:.1f} s of a processor"
    )
    print(f"peak memory {peak_mib():.0f} MiB, {before:.0f} before")
    patients = aggregate(test, "c1")
    start = time.perf_counter()
    bootstrap_auc(aggregate(test, "c1", "none"), "c1", draws=asked.draws)
    ours = (time.perf_counter() - start) / asked.draws
    theirs = looped(test)
    print(f"AUC by image, a draw: {ours * 1e3:.2f} ms; in a loop {theirs * 1e3:.1f} ms")
    print(f"ratio {theirs / ours:.0f}; the loop would take {theirs * asked.draws:.0f} s")
    print(f"AUC by patient {roc_auc_score(patients['label'] == 'c1', patients['score/c1']):.4f}")


def predictions(asked: argparse.Namespace, seed: int) -> pd.DataFrame:
    """A predictions frame; a patient's images share its label and a part of their scores."""
    rng = np.random.default_rng(seed)
    patient = np.arange(asked.images) // 4
    label = (rng.random(patient[-1] + 1) < asked.prevalence).astype(int)
    others = rng.integers(2, asked.classes, len(label)) if asked.classes > 2 else 0
    label = np.where((label == 0) & (rng.random(len(label)) < 0.5), others, label)[patient]
    logits = rng.normal(size=(len(patient), asked.classes)) + 1.5 * np.eye(asked.classes)[label]
    logits += rng.normal(size=(patient[-1] + 1, asked.classes))[patient]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    frame = pd.DataFrame({"image_id": [f"i{each:07d}" for each in range(len(patient))]})
    frame["group_id"] = [f"p{each:07d}" for each in patient]
    frame["laterality"] = np.where(np.arange(len(patient)) // 2 % 2, "R", "L")
    frame["dataset"], frame["label_id"] = "drawn", label
    frame["label"] = [f"c{each}" for each in label]
    return frame.assign(**{f"score/c{each}": scores[:, each] for each in range(asked.classes)})


def looped(images: pd.DataFrame) -> float:
    """Seconds a draw of the AUC by image in the plain loop, patients drawn with replacement."""
    rows = list(images.groupby("group_id").indices.values())
    positive, score = (images["label"] == "c1").to_numpy(), images["score/c1"].to_numpy()
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(LOOPED):
        drawn = np.concatenate([rows[each] for each in rng.integers(len(rows), size=len(rows))])
        roc_auc_score(positive[drawn], score[drawn])
    return (time.perf_counter() - start) / LOOPED


def peak_mib() -> float:
    """Most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
