"""A tracking store with a real dataset in it, and steps run on it as a user runs them."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import classifier_data
import doors
import numpy as np
import yaml

from mammo.data.dataset import Dataset
from mammo.lineage import COMMIT, DIRTY
from mammo.models import SavedModel, save_model
from mammo.registrar import Version
from mammo.tracking import Registry, TrackedRun, Tracking

CLEAN = {COMMIT: "0123456789abcdef", DIRTY: "false"}


class Lab:
    """Runs steps in this process against the store that MLFLOW_TRACKING_URI names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tracking = Tracking()

    @property
    def registry(self) -> Registry:
        """Opened anew: a registry remembers the runs that it saw first."""
        return Registry(self.tracking, self.folder / "home")

    def logged(self, data: Dataset, name: str = "preprocess") -> str:
        """The run of a step that made `data`."""
        run_id = self.tracking.create_run(name, "preprocess")
        self.tracking.client.log_artifacts(run_id, str(data.folder), "dataset")
        self.tag(run_id, {"mammo.digest": data.digest})
        self.tracking.set_status(run_id, "FINISHED")
        self.commit(run_id)
        return run_id

    def spots(self, name: str, **settings: Any) -> str:
        """A run with a dataset whose malignant images have a bright spot."""
        return self.logged(classifier_data.write(self.folder / name, **settings))

    def step(self, entry: str, **settings: Any) -> str:
        """Run a step and take its code for committed; returns the run's id."""
        done = doors.here(entry, **settings)
        assert done.code == 0, done.err[-3000:]
        self.commit(done.run_id)
        return done.run_id

    def classifier(self, data: str, *, seed: int = 0, learned: bool = True, **about: Any) -> str:
        """A run with a classifier: random features, and a head fitted to the training rows.

        One that has not learned was fitted to labels in another order.
        """
        rows = Dataset(self.artifacts(data) / "dataset")
        run_id = self.tracking.create_run("train_classifier", "train_classifier")
        self.tag(run_id, {"mammo.input.data": data})
        run = TrackedRun(
            self.tracking, run_id, folder=self.folder / run_id, work=self.folder, inputs={}
        )
        saved = fitted(rows, self.folder / run_id / "model", run_id, seed, learned, about)
        run.model(saved.folder)
        self.tag(run_id, {"mammo.digest": saved.digest})
        self.tracking.set_status(run_id, "FINISHED")
        self.commit(run_id)
        return run_id

    def evaluate(self, model: str, data: str, **settings: Any) -> str:
        # so few draws are enough for an interval that is nowhere near its bound
        return self.step("evaluate", model=model, data=data, bootstrap=200, **settings)

    def promote(self, model: str, name: str, **settings: Any) -> doors.Outcome:
        assert self.tracking.outbox.flush(60)  # what the lab logged itself
        return doors.here("promote", model=model, name=name, **settings)

    def policy(self, **gates: Any) -> str:
        """A policy file; `test__auc` in a name stands for test/auc."""
        path = self.folder / f"policy-{abs(hash(repr(gates)))}.yaml"
        path.write_text(yaml.safe_dump({key.replace("__", "/"): gates[key] for key in gates}))
        return str(path)

    def commit(self, *run_ids: str) -> None:
        for run_id in run_ids:
            self.tag(run_id, CLEAN)

    def tag(self, run_id: str, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            self.tracking.client.set_tag(run_id, key, value)

    def aliases(self, name: str) -> dict[str, str]:
        """Version by alias."""
        found = self.tracking.client.get_registered_model(name).aliases
        return {alias: str(version) for alias, version in found.items()}

    def versions(self, name: str) -> list[Version]:
        found = self.tracking.client.search_model_versions(f"name = '{name}'")
        return [each for run in sorted({v.run_id for v in found}) for each in self._of(run, name)]

    def _of(self, run_id: str, name: str) -> list[Version]:
        return [each for each in self.registry.versions(run_id) if each.name == name]

    def artifacts(self, run_id: str) -> Path:
        """Folder of a run's artifacts, as a stranger with access to the store finds it."""
        uri = self.tracking.get(run_id).info.artifact_uri
        return Path(str(uri).removeprefix("file://"))

    def forget(self) -> None:
        """Empty the work folder's cache of models."""
        shutil.rmtree(self.folder / "home" / "models", ignore_errors=True)


def fitted(
    data: Dataset, folder: Path, run_id: str, seed: int, learned: bool, about: Mapping[str, Any]
) -> SavedModel:
    """A saved classifier whose head is a logistic regression on random features."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from mammo.classifiers.backbone import build

    rows = np.flatnonzero(data.manifest["split"] == "train")
    labels = data.label_ids()[rows]
    network = build("test_resnet", shape=data.shape, classes=2, seed=seed).eval()
    with torch.no_grad():
        features = network.features(torch.from_numpy(data.images(rows)))
        network.scale_features(features)
        scaled = (features - network.feature_mean) / network.feature_sd
        truth = labels if learned else np.random.default_rng(seed).permutation(labels)
        found = LogisticRegression(max_iter=1000).fit(scaled.numpy(), truth)
        weight, bias = (torch.from_numpy(each).float() for each in (found.coef_, found.intercept_))
        network.last_layer.weight.copy_(torch.cat([-weight, weight]) / 2)
        network.last_layer.bias.copy_(torch.cat([-bias, bias]) / 2)
    return save_model(
        folder,
        kind="classifier",
        run_id=run_id,
        classes=data.classes,
        shape=data.shape,
        weights={name: value.clone() for name, value in network.state_dict().items()},
        training=data.manifest.iloc[rows],
        settings={"seed": seed},
        about={
            "model_name": "test_resnet",
            "activation": "softmax",
            "aggregate": "mean",
            "thresholds": {"balanced": 0.5},
            "fold": "none",
            "salt": data.about["salt"],
            **about,
        },
    )
