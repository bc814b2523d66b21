"""Runs of one recipe: one partition in one run, or folds and seeds as children of a parent."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mammo.classifiers.cross_validation import summarise
from mammo.classifiers.features import Features
from mammo.classifiers.material import Material, rows_digest, write_partition
from mammo.classifiers.pictures import draw_curves, preview
from mammo.classifiers.recipe import Recipe
from mammo.classifiers.scores import finite, pooled
from mammo.classifiers.train import Trained, train_classifier
from mammo.classifiers.weights import Weights, read_weights
from mammo.data.dataset import Dataset
from mammo.data.mix_settings import MixSettings
from mammo.data.mixed import mix_training, write_mix
from mammo.data.mixing import counts
from mammo.data.splits import fold_numbers, training_rows
from mammo.errors import ConfigError
from mammo.evaluation.ranking import aggregate, bootstrap_auc, class_aucs, frame_auc
from mammo.loggers import logged_by
from mammo.run import Result, Run

log = logging.getLogger("mammo")


@dataclass(frozen=True)
class Done:
    """A finished child: what its parent needs of it, kept so that it is never computed again."""

    fold: str
    seed: int
    run_id: str
    model: str  # its URI
    digest: str  # of the model
    train_images: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Experiment:
    """A recipe with the datasets and the weights that all its runs share."""

    data: Dataset
    synthetic: list[Dataset]
    recipe: Recipe
    weights: Weights
    features: Features
    settings: Mapping[str, Any]  # of the step, for mixing and for the children's parameters

    @classmethod
    def open(cls, tracked: Run, recipe: Recipe, settings: Mapping[str, Any]) -> "Experiment":
        """Open what the run's inputs name, and read the weights: a broken file ends the run."""
        data = Dataset(tracked.inputs["data"][0].path)
        synthetic = [Dataset(each.path) for each in tracked.inputs.get("synthetic", [])]
        weights = read_weights(recipe.weights, recipe.model_name)
        log.info("weights: %s %s", weights.source, weights.sha256)
        return cls(data, synthetic, recipe, weights, Features(data), settings)

    def folds(self, folds: str) -> list[str]:
        """The partitions to run: a hold-out, a fold, or all folds of the dataset."""
        if folds != "all":
            return [folds]
        numbers = fold_numbers(self.data)
        if not numbers:
            raise ConfigError(
                f"folds 'all' is asked of dataset {self.data.name}, which has no folds; "
                "preprocess it again with --k_folds 5, or use folds none"
            )
        return [str(each) for each in numbers]

    def single(self, tracked: Run, fold: str, seed: int) -> Result:
        """Train on one partition in this run."""
        trained = self._train(tracked, fold, seed)
        return Result({"model": tracked.uri("model")}, trained.metrics, trained.saved.digest)

    def many(self, tracked: Run, runs: list[tuple[str, int]]) -> Result:
        """Train a fresh classifier in a child run for each fold and seed, and pool what they say.

        A child that was finished before a kill is not computed again.
        """
        done, frames = [], []
        for fold, seed in runs:
            name = f"fold-{fold}-seed-{seed}" if fold != "none" else f"seed-{seed}"
            record = self._child(tracked, name, fold, seed)
            done.append(record)
            frames.append(pd.read_parquet(_kept(tracked, name) / "predictions.parquet"))
        tracked.table("runs", pd.DataFrame([_row(each) for each in done]))
        _log_predictions(tracked, pd.concat(frames, ignore_index=True))
        positive, how = self.data.classes.positive, self.recipe.aggregate
        if runs[0][0] == "none":
            found = _over_seeds(done)
        else:
            found = over_folds(done) | out_of_fold(pooled(frames), positive, how)
        found = finite(found)
        tracked.metrics(found)
        digest = hashlib.sha256(",".join(each.digest for each in done).encode()).hexdigest()[:32]
        return Result({"predictions": tracked.uri("predictions.parquet")}, found, digest)

    def _child(self, tracked: Run, name: str, fold: str, seed: int) -> Done:
        kept = _kept(tracked, name)
        if (kept / "done.json").is_file():
            log.info("%s is finished; not computed again", name)
            return Done(**json.loads((kept / "done.json").read_text()))
        given = {**self.settings, "folds": fold, "seeds": "", "seed": seed}
        with tracked.child(name, "train_classifier", given) as child:
            _tag_inputs(child)
            trained = self._train(child, fold, seed)
        record = Done(
            fold,
            seed,
            child.id,
            child.uri("model"),
            trained.saved.digest,
            len(trained.saved.training),
            trained.metrics,
        )
        _keep(kept, record, trained.scored if fold != "none" else trained.val)
        shutil.rmtree(child.folder / "checkpoints", ignore_errors=True)
        return record

    def _train(self, tracked: Run, fold: str, seed: int) -> Trained:
        """Train on one partition and log everything that the run carries."""
        material = self._material(tracked, fold, seed)
        self._declare(tracked, material)
        with logged_by(self.settings["logger"], tracked, self.settings) as logged:
            trained = train_classifier(
                logged, material, self.recipe, self.weights, self.features, seed=seed
            )
        tracked.metrics(finite(trained.metrics))
        tracked.tags(
            {"mammo.digest": trained.saved.digest, "mammo.weights": self.weights.sha256 or "none"}
        )
        tracked.model(trained.saved.folder)
        tracked.figure("curves", draw_curves(trained.history))
        path = tracked.folder / "val.parquet"
        trained.val.to_parquet(path, index=False)
        tracked.artifacts(path, "predictions")
        if len(trained.scored):
            _log_predictions(tracked, trained.scored)
        return trained

    def _material(self, tracked: Run, fold: str, seed: int) -> Material:
        data = self.data
        rows = training_rows(data, fold=fold, val_fraction=self.recipe.val_fraction)
        asked = MixSettings.of(self.settings)
        if self.synthetic or asked.thins_real:
            mixed = mix_training([data], self.synthetic, [rows], asked, seed=seed)
            data, rows = mixed.data, mixed.partition
            for path in write_mix(mixed, tracked.folder):
                tracked.artifacts(path)
            tracked.metrics(counts(mixed.mix))
        return Material(data, rows.train, rows.val, rows.scored, str(fold))

    def _declare(self, tracked: Run, material: Material) -> None:
        """Say what goes in: dataset inputs, the partition, a batch as the network sees it."""
        data = material.data
        synthetic = data.manifest["is_synthetic"].to_numpy()[material.train]
        for context, rows in (
            ("training", material.train[~synthetic]),
            ("synthetic", material.train[synthetic]),
            ("validation", material.val),
            ("test", material.scored),
        ):
            if len(rows):
                # its own digest: the store keeps one context for each name and digest
                tracked.input(data.name, rows_digest(data, rows), len(rows), context)
        path = tracked.folder / "partition.json"
        tracked.artifacts(write_partition(material, path, val_fraction=self.recipe.val_fraction))
        path = tracked.folder / "preview.png"
        Image.fromarray(preview(material, self.recipe.augment, 0)).save(path)
        tracked.artifacts(path)


def over_folds(done: list[Done]) -> dict[str, float]:
    """cv/auc_mean, _sd, _low and _high over the runs of all folds and seeds."""
    folds: dict[str, list[float]] = {}
    for each in done:
        folds.setdefault(each.fold, []).append(each.metrics.get("fold/auc", float("nan")))
    said = summarise(list(folds.values()))
    return {f"cv/auc_{name}": value for name, value in asdict(said).items()}


def out_of_fold(frame: pd.DataFrame, positive: str, how: str) -> dict[str, float]:
    """oof/auc of pooled predictions with its bootstrap interval, and of each of several classes."""
    patients = aggregate(frame, positive, how)
    low, high = bootstrap_auc(patients, positive)
    found = {"oof/auc": frame_auc(patients, positive), "oof/auc_low": low, "oof/auc_high": high}
    each = class_aucs(patients)
    return found | ({f"oof/auc/{name}": each[name] for name in each} if len(each) > 2 else {})


def _over_seeds(done: list[Done]) -> dict[str, float]:
    """Mean of the validation metrics; a hold-out's test rows are read by evaluate alone."""
    names = done[0].metrics
    return {f"{name}_mean": float(np.mean([each.metrics[name] for each in done])) for name in names}


def _row(done: Done) -> dict[str, Any]:
    return {key: value for key, value in asdict(done).items() if key != "metrics"} | done.metrics


def _kept(tracked: Run, name: str) -> Path:
    return tracked.folder / "finished" / name


def _keep(folder: Path, done: Done, predictions: pd.DataFrame) -> None:
    """Keep a finished child's record, which appears when it is whole."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    predictions.to_parquet(partial / "predictions.parquet", index=False)
    (partial / "done.json").write_text(json.dumps(asdict(done)) + "\n")
    partial.replace(folder)


def _log_predictions(tracked: Run, frame: pd.DataFrame) -> None:
    path = tracked.folder / "predictions.parquet"
    frame.to_parquet(path, index=False)
    tracked.artifacts(path)
    tracked.table("predictions", frame)


def _tag_inputs(child: Run) -> None:
    """Lineage of a child, which the driver writes for its parent only."""
    child.tags(
        {
            f"mammo.input.{name}": ",".join(each.run_id or each.digest for each in references)
            for name, references in child.inputs.items()
        }
    )
