"""Runs of one recipe: one partition in one run, or folds and seeds as children of a parent."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mammo.classifiers.changing import make_changing
from mammo.classifiers.cross_validation import metrics_of, out_of_fold, summarise
from mammo.classifiers.feature_store import FeatureStore
from mammo.classifiers.features import Features
from mammo.classifiers.material import (
    Material,
    check_ground,
    check_held_out,
    limited,
    overfitting,
    rows_digest,
    write_partition,
)
from mammo.classifiers.pictures import draw_curves, preview
from mammo.classifiers.recipe import Recipe, seeds_of
from mammo.classifiers.scores import finite
from mammo.classifiers.train import Trained, along, train_classifier
from mammo.classifiers.weights import Weights, read_weights
from mammo.data.dataset import Dataset
from mammo.data.mix_settings import MixSettings
from mammo.data.mixed import Mixed, mix_training, write_mix
from mammo.data.mixing import counts
from mammo.data.splits import fold_numbers, training_rows
from mammo.errors import ConfigError
from mammo.evaluation.families import scored_per_trained
from mammo.loggers import logged_by
from mammo.run import Result, Run, SilentRun
from mammo.training.children import Task, in_processes
from mammo.training.devices import device_of
from mammo.training.processes import Team

log = logging.getLogger("mammo")
HEADLINE = ("cv/auc_", "oof/auc")  # what the last line of a family's run says


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
class Outcome:
    """What a child hands to its parent."""

    digest: str  # of its model
    train_images: int
    metrics: dict[str, float]
    predictions: pd.DataFrame
    validation: pd.DataFrame  # predictions of the rows that choose the thresholds


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
        make_changing(vars(recipe), data.classes.names)  # refuses a class that is not there
        given = [each.path for each in tracked.inputs.get("weights", [])]
        weights = read_weights(recipe.weights, recipe.model_name, *given)
        log.info("weights: %s %s", weights.source, weights.sha256)
        features = Features(data, FeatureStore(tracked.work / "features"))
        return cls(data, synthetic, recipe, weights, features, settings)

    def runs(self) -> list[tuple[str, int]]:
        """Fold and seed of every training that is asked for."""
        seeds = seeds_of(self.settings["seeds"], self.settings["seed"])
        return [(fold, seed) for fold in self._folds() for seed in seeds]

    def _folds(self) -> list[str]:
        """The partitions to run: a hold-out, a fold, or all folds of the dataset."""
        folds = str(self.settings["folds"])
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
        metrics = dict(trained.metrics)
        if self.synthetic:  # what a search may weigh the metric against
            metrics["realised_real_percentage"] = trained.real_share
        return Result({"model": tracked.uri("model")}, metrics, trained.saved.digest)

    def many(self, tracked: Run, runs: list[tuple[str, int]]) -> Result:
        """Train a fresh classifier in a child run for each fold and seed, and pool what they say.

        A child that was finished before a kill is not computed again.
        """
        self.check_held_out(runs)
        jobs = self.settings["jobs"]
        (self.children if jobs == 1 else partial(self._children_at_once, jobs))(tracked, runs)
        done, frames, validation = [], [], []
        for kept in (_kept(tracked, *each) for each in runs):
            done.append(Done(**json.loads((kept / "done.json").read_text())))
            frames.append(pd.read_parquet(kept / "predictions.parquet"))
            validation.append(pd.read_parquet(kept / "validation.parquet"))
        tracked.table("runs", pd.DataFrame([_row(each) for each in done]))
        _log_predictions(tracked, pd.concat(frames, ignore_index=True))
        if runs[0][0] == "none":
            found = headline = finite(_over_seeds(done))
        else:
            table = out_of_fold(frames, validation, self.data.classes, self.recipe.aggregate)
            tracked.table("out_of_fold", table)
            found = finite(over_folds(done, frames) | metrics_of(table))
            headline = {name: found[name] for name in found if name.startswith(HEADLINE)}
        tracked.metrics(found)
        digest = hashlib.sha256(",".join(each.digest for each in done).encode()).hexdigest()[:32]
        return Result({"predictions": tracked.uri("predictions.parquet")}, headline, digest)

    def check_held_out(self, runs: list[tuple[str, int]]) -> None:
        """Tell now, and not when it is due, that a fold cannot be scored."""
        for fold in dict.fromkeys(fold for fold, _ in runs):
            rows = training_rows(self.data, fold=fold, val_fraction=self.recipe.val_fraction)
            check_held_out(
                Material(self.data, rows.train, rows.val, rows.scored, fold), self.recipe.aggregate
            )

    def children(self, tracked: Run, runs: list[tuple[str, int]]) -> None:
        """Train those of `runs` that are not finished, one after the other."""
        for fold, seed in _unfinished(tracked, runs):
            with self._opened(tracked, fold, seed) as child:
                outcome = self.outcome(child, fold, seed)
            _keep(_kept(tracked, fold, seed), outcome, child, fold, seed)

    def _children_at_once(self, jobs: int, tracked: Run, runs: list[tuple[str, int]]) -> None:
        """Train those of `runs` that are not finished, `jobs` at a time, in processes."""
        left = _unfinished(tracked, runs)
        tasks = [
            Task(
                partial(self._opened, tracked, *each),
                partial(_in_process, dict(self.settings), *each),
            )
            for each in left
        ]
        for number, child, outcome in in_processes(tasks, jobs):
            _keep(_kept(tracked, *left[number]), outcome, child, *left[number])

    def _opened(self, tracked: Run, fold: str, seed: int) -> AbstractContextManager[Run]:
        given = {**self.settings, "folds": fold, "seeds": "", "seed": seed}
        return tracked.child(_name(fold, seed), "train_classifier", given)

    def outcome(self, child: Run, fold: str, seed: int) -> Outcome:
        """Train in a child run; what its parent keeps of it."""
        _tag_inputs(child)
        trained = self._train(child, fold, seed)
        for folder in sorted(child.folder.glob("checkpoints*")):
            shutil.rmtree(folder, ignore_errors=True)
        return Outcome(
            trained.saved.digest,
            int(trained.saved.about["train_images"]),
            trained.metrics,
            trained.scored if fold != "none" else trained.val,
            trained.val,
        )

    def _train(self, tracked: Run, fold: str, seed: int) -> Trained:
        """Train on one partition and log everything that the run carries."""
        material = self._material(tracked, fold, seed)
        self._declare(tracked, material)
        with logged_by(self.settings["logger"], tracked, self.settings) as logged:
            seen = (tracked.id, tracked.folder, tracked.work, dict(tracked.inputs))
            trained = train_classifier(
                logged,
                material,
                self.recipe,
                self.weights,
                self.features,
                seed=seed,
                others=partial(_along, dict(self.settings), fold, seed, seen),
            )
        # best/ stands at its epoch already, where a chart of it goes up to
        tracked.metrics(
            {k: v for k, v in finite(trained.metrics).items() if not k.startswith("best/")}
        )
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
        material, mixed = self.mixed(fold, seed)
        if mixed is not None:
            for path in write_mix(mixed, tracked.folder):
                tracked.artifacts(path)
            tracked.metrics(counts(mixed.mix))
        return material

    def mixed(self, fold: str, seed: int) -> tuple[Material, Mixed | None]:
        """What trains, validates and is scored, and how it was mixed where it was."""
        data, mixed = self.data, None
        rows = training_rows(data, fold=fold, val_fraction=self.recipe.val_fraction)
        rows = replace(rows, train=limited(data, rows.train, self.recipe.limit, seed))
        asked = MixSettings.of(self.settings)
        if self.synthetic or asked.thins_real:
            mixed = mix_training([data], self.synthetic, [rows], asked, seed=seed)
            data, rows = mixed.data, mixed.partition
        scored = rows.scored if self.settings["score_fold"] else rows.scored[:0]
        material = Material(data, rows.train, rows.val, scored, str(fold))
        if self.weights.model is not None:
            check_ground(self.weights.model, material)
        return overfitting(material, self.recipe.overfit, seed), mixed

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
        change = make_changing(vars(self.recipe), self.data.classes.names)
        Image.fromarray(preview(material, change, 0)).save(path)
        tracked.artifacts(path)


def over_folds(done: list[Done], predictions: list[pd.DataFrame]) -> dict[str, float]:
    """Over the runs of all folds and seeds: cv/<metric>_mean and _sd of all that each fold has.

    cv/auc also has _low and _high.
    """
    ratio = float(np.mean([scored_per_trained(each) for each in predictions]))
    names = [name for name in done[0].metrics if name.startswith("fold/")]
    said = {
        name: summarise(list(_by_fold(done, name).values()), ratio=ratio)
        for name in [*names, "fold/auc"]
    }
    found = {
        f"cv/{name.removeprefix('fold/')}_{kind}": getattr(each, kind)
        for name, each in said.items()
        for kind in ("mean", "sd")
    }
    auc = said["fold/auc"]
    return found | {"cv/auc_low": auc.low, "cv/auc_high": auc.high}


def _by_fold(done: list[Done], name: str) -> dict[str, list[float]]:
    """Values of a metric by fold, those of its seeds together; nan where a run has none."""
    folds: dict[str, list[float]] = {}
    for each in done:
        folds.setdefault(each.fold, []).append(each.metrics.get(name, float("nan")))
    return folds


def _over_seeds(done: list[Done]) -> dict[str, float]:
    """Mean and sd of the validation metrics; a hold-out's test rows are read by evaluate alone."""
    said = {name: summarise([_by_fold(done, name)["none"]]) for name in done[0].metrics}
    means = {f"{name}_mean": each.mean for name, each in said.items()}
    return means | {f"{name}_sd": each.sd for name, each in said.items()}


def _row(done: Done) -> dict[str, Any]:
    return {key: value for key, value in asdict(done).items() if key != "metrics"} | done.metrics


def _name(fold: str, seed: int) -> str:
    return f"fold-{fold}-seed-{seed}" if fold != "none" else f"seed-{seed}"


def _kept(tracked: Run, fold: str, seed: int) -> Path:
    return tracked.folder / "finished" / _name(fold, seed)


def _unfinished(tracked: Run, runs: list[tuple[str, int]]) -> list[tuple[str, int]]:
    left = [each for each in runs if not (_kept(tracked, *each) / "done.json").is_file()]
    for each in runs:
        if each not in left:
            log.info("%s is finished; not computed again", _name(*each))
    return left


def _keep(folder: Path, outcome: Outcome, child: Run, fold: str, seed: int) -> None:
    """Keep a finished child's record, which appears when it is whole."""
    about = (child.id, child.uri("model"), outcome.digest, outcome.train_images, outcome.metrics)
    partial_folder = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    outcome.predictions.to_parquet(partial_folder / "predictions.parquet", index=False)
    outcome.validation.to_parquet(partial_folder / "validation.parquet", index=False)
    record = json.dumps(asdict(Done(fold, seed, *about)))
    (partial_folder / "done.json").write_text(record + "\n")
    partial_folder.replace(folder)


def _in_process(settings: dict[str, Any], fold: str, seed: int, child: Run, slot: int) -> Outcome:
    """The work of a child in a process of its own, on a device of its own where there are some."""
    device = device_of(settings["device"], slot)
    recipe = Recipe.of({**settings, "device": device})
    return Experiment.open(child, recipe, settings).outcome(child, fold, seed)


def _along(
    settings: dict[str, Any], fold: str, seed: int, seen: tuple[Any, ...], team: Team
) -> None:
    """Train along in another process of a team."""
    tracked = SilentRun(*seen)
    own = Experiment.open(tracked, Recipe.of(settings), settings)
    material, _ = own.mixed(fold, seed)
    along(tracked, material, own.recipe, own.weights, own.features, seed=seed, team=team)


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
