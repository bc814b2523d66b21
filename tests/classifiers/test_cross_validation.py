"""The mean over folds comes with the corrected interval."""

import math

import numpy as np
import pandas as pd
import pytest

from mammo.classifiers.cross_validation import metrics_of, out_of_fold, summarise
from mammo.data.classes import TASKS
from mammo.evaluation.families import compare_folds
from mammo.evaluation.ranking import auc


def test_the_interval_is_that_of_nadeau_and_bengio():
    # sd 0.1 of five folds: half width t(0.975, 4) x 0.1 x sqrt(1/5 + 1/4), t = 2.776445
    values = [0.5 + 0.1 * each for each in (-math.sqrt(2), 0, 0, 0, math.sqrt(2))]
    said = summarise([[value] for value in values])
    assert (said.mean, said.sd) == (pytest.approx(0.5), pytest.approx(0.1))
    half = 2.776445 * 0.1 * math.sqrt(0.45)
    assert said.low == pytest.approx(0.5 - half, abs=1e-6)
    assert said.high == pytest.approx(0.5 + half, abs=1e-6)


def test_validation_rows_that_nobody_trains_on_widen_the_interval():
    # five folds of 60 images: 12 are scored, 8 of the other 48 validate, so 12 / 40 instead of 1/4
    values = [[0.5 + 0.1 * each] for each in (-math.sqrt(2), 0, 0, 0, math.sqrt(2))]
    half = 2.776445 * 0.1 * math.sqrt(1 / 5 + 12 / 40)
    said = summarise(values, ratio=12 / 40)
    assert said.high - said.mean == pytest.approx(half, abs=1e-6)
    ours, theirs = ({n: {0: v[0] / k} for n, v in enumerate(values)} for k in (1, 2))
    found = compare_folds(ours, theirs, ratio=12 / 40)
    assert found.high - found.mean == pytest.approx(half / 2, abs=1e-6)


def test_seeds_that_agree_make_no_interval_narrower():
    spread = [0.7, 0.8, 0.9, 0.8, 0.8]
    once = summarise([[value] for value in spread])
    often = summarise([[value] * 20 for value in spread])
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_seeds_of_a_fold_count_as_their_mean():
    said = summarise([[0.6, 0.8], [0.8, 1.0], [0.75, 0.85]])
    means = summarise([[0.7], [0.9], [0.8]])
    assert (said.mean, said.low, said.high) == pytest.approx((means.mean, means.low, means.high))
    assert said.sd == pytest.approx(np.std([0.6, 0.8, 0.8, 1.0, 0.75, 0.85], ddof=1))


def test_an_interval_stays_between_0_and_1():
    said = summarise([[1.0], [0.9], [1.0]])
    assert said.high == 1.0


def test_one_value_has_no_interval():
    said = summarise([[0.8]])
    assert said.mean == 0.8 and math.isnan(said.low)


def test_seeds_of_one_fold_have_a_spread_but_no_interval():
    said = summarise([[0.7, 0.9]])
    assert said.sd == pytest.approx(0.1 * math.sqrt(2))
    assert math.isnan(said.low) and math.isnan(said.high)


def test_recipes_are_compared_on_the_folds_and_seeds_of_both():
    ours = {0: {0: 0.9, 1: 0.7, 2: 0.1}, 1: {0: 0.9}, 2: {0: 0.8}, 3: {0: 0.5}}
    theirs = {0: {0: 0.8, 1: 0.6}, 1: {0: 0.7}, 2: {0: 0.5, 1: 0.0}}
    # differences by fold 0.1, 0.2 and 0.3: t = 0.2 / (0.1 sqrt(1/3 + 1/2)) = 2.190890, df 2
    found = compare_folds(ours, theirs)
    assert found.mean == pytest.approx(0.2)
    # t of two degrees of freedom has P(|T| > t) = 1 - t / sqrt(t^2 + 2)
    assert found.p == pytest.approx(1 - 2.190890 / math.sqrt(2.190890**2 + 2), abs=1e-6)
    assert found.high - found.mean == pytest.approx(4.302653 * 0.1 * math.sqrt(5 / 6), abs=1e-6)


def test_a_recipe_does_not_differ_from_itself():
    same = {fold: {0: 0.5 + fold / 10} for fold in range(3)}
    found = compare_folds(same, same)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def told(split, fold, scores, *, seed=0):
    """Predictions of a run: `scores` by patient, whose number tells the class: odd ones have it."""
    names = [f"{split}{fold}-{each}" for each in scores]
    frame = pd.DataFrame({"image_id": names, "group_id": names, "dataset": "d", "split": split})
    frame["fold"], frame["seed"] = fold, seed
    frame["label_id"] = [each % 2 for each in scores]
    frame["label"] = np.where(frame["label_id"], "malignant", "benign")
    high = np.array([*scores.values()])
    return frame.assign(**{"score/benign": 1 - high, "score/malignant": high, "pred": "benign"})


def test_each_fold_is_called_by_the_threshold_of_its_own_validation():
    # fold 0 scores low and fold 1 high: their thresholds are 0.2 and 0.8, one for both is neither
    scored = [told("s", 0, {0: 0.1, 1: 0.3, 2: 0.25}), told("s", 1, {0: 0.7, 1: 0.9})]
    validation = [told("v", 0, {0: 0.1, 1: 0.3}), told("v", 1, {0: 0.7, 1: 0.9})]
    found = metrics_of(out_of_fold(scored, validation, TASKS["malignancy2"], "mean"))
    assert (found["oof/sensitivity"], found["oof/specificity"]) == pytest.approx((1, 2 / 3))
    assert found["oof/balanced_accuracy"] == pytest.approx(5 / 6)
    assert found["oof/sensitivity_at_specificity_90"] == 1
    # of the pairs of a malignant 0.3 or 0.9 with 0.1, 0.25 and 0.7, one is the wrong way round
    assert found["oof/auc"] == pytest.approx(5 / 6)
    brier = (0.1**2 + 0.7**2 + 0.25**2 + 0.7**2 + 0.1**2) / 5
    assert found["oof/brier"] == pytest.approx(brier)
    # from the highest score on: 1 of 1 and 2 of 3 are malignant, each with half of the recall
    assert found["oof/pr_auc"] == pytest.approx((1 + 2 / 3) / 2)
    for name in ("auc", "pr_auc", "ece", "sensitivity_at_specificity_95"):
        assert found[f"oof/{name}_low"] <= found[f"oof/{name}"] <= found[f"oof/{name}_high"]


def test_seeds_are_averaged_before_their_fold_chooses_its_threshold():
    # the means of validation are 0.4 and 0.6, between which nothing lies
    seeds = [{0: 0.1, 1: 0.2}, {0: 0.7, 1: 1.0}]
    validation = [told("v", 0, scores, seed=seed) for seed, scores in enumerate(seeds)]
    tested = [{0: 0.2, 1: 0.1, 2: 0.1, 3: 0.2}, {0: 0.76, 1: 0.94, 2: 0.8, 3: 0.9}]
    scored = [told("s", 0, scores, seed=seed) for seed, scores in enumerate(tested)]
    # means 0.48, 0.52, 0.45 and 0.55 against 0.5
    table = out_of_fold(scored, validation, TASKS["malignancy2"], "mean").set_index("metric")
    assert table.loc[["sensitivity", "specificity", "balanced_accuracy"], "value"].tolist() == [
        *(1, 1, 1)
    ]


def learned(features, labels, train, seed):
    """Scores of all rows by the difference of the classes' means over a redrawn training set."""
    drawn = np.random.default_rng(seed).choice(train, len(train))
    mine, positive = features[drawn], labels[drawn]
    return features @ (mine[positive].mean(axis=0) - mine[~positive].mean(axis=0))


@pytest.mark.slow
def test_equal_recipes_differ_in_at_most_8_percent_of_studies():
    """Five folds and three seeds; the same rows with the seeds taken as folds find far more."""
    studies, found, pooled = 600, 0, 0
    for study in range(studies):
        rng = np.random.default_rng(study)
        labels = np.arange(150) % 2 == 0
        # two recipes that see different, equally telling features
        both = rng.normal(size=(2, 150, 5)) + 0.4 * labels[:, None]
        fold_of = rng.permutation(np.arange(150) % 5)
        values = [{}, {}]
        for recipe, features in enumerate(both):
            for fold in range(5):
                test = fold_of == fold
                values[recipe][fold] = {
                    seed: auc(
                        labels[test],
                        learned(features, labels, np.flatnonzero(~test), [study, seed])[test],
                    )
                    for seed in range(3)
                }
        found += compare_folds(*values).p < 0.05
        as_folds = [
            {(fold, seed): {0: value} for fold in each for seed, value in each[fold].items()}
            for each in values
        ]
        pooled += compare_folds(*as_folds).p < 0.05
    assert found / studies <= 0.08
    assert pooled / studies > 0.10  # so the test sees what is wrong
