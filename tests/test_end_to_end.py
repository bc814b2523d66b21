"""Every entry point through `mlflow run`, each one fed by the output of the one before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doors import Outcome, mammo, mlflow_run
from mlflow import MlflowClient

pytestmark = pytest.mark.doors

SMALL_NET = {"channels": "8,16", "attention": 0}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store and one work folder for the whole chain."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MAMMO_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def chain(state: Path) -> dict[str, Outcome]:
    """The outcome of every step of the pipeline, on 24 phantom patients."""
    done: dict[str, Outcome] = {}

    def step(name: str, entry: str = "", /, **settings: Any) -> Outcome:
        done[name] = mlflow_run(entry or name, **settings)
        assert done[name].code == 0, done[name].err[-3000:]
        return done[name]

    data = step("preprocess", dataset="phantom", patients=24, image_size=32, val_fraction=0.25)
    generator = step("train_generator", data=data.run_id, epochs=2, batch_size=8, **SMALL_NET)
    synthetic = step("sample", generator=generator.uri, counts="benign=12,malignant=12", steps=4)
    mixed = step("mix", real=data.uri, synthetic=synthetic.uri, real_percentage=0.5)
    fast = {"model_name": "resnet10t", "epochs": 2, "batch_size": 8}
    real_only = step("real_only", "train_classifier", data=data.uri, **fast)
    classifier = step("train_classifier", data=mixed.uri, **fast)
    step(
        "evaluate",
        model=classifier.uri,
        baseline=real_only.uri,
        data=data.uri,
        synthetic=synthetic.uri,
        bootstrap=200,
    )
    trials = {f"train_classifier.{name}": value for name, value in fast.items()}
    step("tune", data=data.uri, synthetic=synthetic.uri, n_trials=2, **trials)
    # two epochs on 24 patients pass no gate
    step("promote", model=classifier.run_id, data=data.uri, name="screening", policy="none")
    return done


@pytest.fixture
def client(chain: dict[str, Outcome], state: Path, monkeypatch: Any) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{state}/mlflow.db")
    monkeypatch.setenv("MAMMO_HOME", str(state / "home"))
    return MlflowClient(tracking_uri=f"sqlite:///{state}/mlflow.db")


STEPS = (
    "preprocess",
    "train_generator",
    "sample",
    "mix",
    "train_classifier",
    "evaluate",
    "tune",
    "promote",
)


@pytest.mark.parametrize("step", STEPS)
def test_each_entry_point_finishes_through_mlflow_run(
    step: str, chain: dict[str, Outcome], client: MlflowClient
) -> None:
    run = client.get_run(chain[step].run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mammo.step"] == step
    assert {"mammo.fingerprint", "mammo.result"} <= set(run.data.tags)
    assert "config.yaml" in {item.path for item in client.list_artifacts(run.info.run_id)}


METRICS = {
    "preprocess": {"images", "patients", "rejected", "count/malignant", "images_per_second"},
    "train_generator": {"train/loss", "val/loss", "images_seen", "images_per_second"},
    "sample": {"images", "rejected", "count/benign", "images_per_second"},
    "mix": {
        "real_images",
        "synthetic_images",
        "realised_real_percentage",
        "count/benign/real",
        "count/malignant/synthetic",
    },
    "train_classifier": {
        "train/loss",
        "val/loss",
        "val/auc",
        "val/pr_auc",
        "val/balanced_accuracy",
        "val/sensitivity",
        "val/specificity",
        "val/f1",
        "best/val/auc",
    },
    "evaluate": {
        "test/auc",
        "test/auc_low",
        "test/auc_high",
        "test/pr_auc",
        "test/balanced_accuracy",
        "test/sensitivity",
        "test/specificity",
        "test/brier",
        "test/ece",
        "test/patients",
        "delta/auc",
        "delta/auc_low",
        "delta/auc_high",
        "delta/p",
    },
    "tune": {"best/val/auc", "trials/complete", "trials/pruned", "trials/failed"},
}


@pytest.mark.parametrize("step", METRICS)
def test_each_step_logs_the_metrics_of_the_interface(
    step: str, chain: dict[str, Outcome], client: MlflowClient
) -> None:
    logged = set(client.get_run(chain[step].run_id).data.metrics)
    assert METRICS[step] - logged == set()


def test_fidelity_is_logged_under_its_extractors_name_beside_the_floor(
    chain: dict[str, Outcome], client: MlflowClient
) -> None:
    logged = set(client.get_run(chain["evaluate"].run_id).data.metrics)
    (kid,) = {name for name in logged if name.endswith("/kid")}
    stem = kid.removesuffix("kid")
    assert {f"{stem}fid", f"{stem}fid_floor"} <= logged


@pytest.mark.parametrize(
    ("step", "contexts"),
    [
        ("train_generator", {"training", "validation"}),
        ("train_classifier", {"training", "validation"}),
        ("evaluate", {"test", "synthetic"}),
    ],
)
def test_dataset_inputs_carry_digest_and_context(
    step: str, contexts: set[str], chain: dict[str, Outcome], client: MlflowClient
) -> None:
    inputs = client.get_run(chain[step].run_id).inputs.dataset_inputs
    assert contexts <= {each.tags[0].value for each in inputs}
    assert all(len(each.dataset.digest) == 32 for each in inputs)


def test_the_mix_is_exact_and_leaves_validation_and_test_alone(
    chain: dict[str, Outcome], client: MlflowClient
) -> None:
    import mammo as package

    real = package.open_dataset(chain["preprocess"].uri).manifest
    mixed = package.open_dataset(chain["mix"].uri).manifest
    for split in ("val", "test"):
        kept = set(mixed.loc[mixed["split"] == split, "sha256"])
        assert kept == set(real.loc[real["split"] == split, "sha256"])
    train = mixed[mixed["split"] == "train"]
    before = real[real["split"] == "train"]["label"].value_counts()
    for label, total in before.items():
        rows = train[train["label"] == label]
        assert len(rows) == total
        assert (~rows["is_synthetic"]).sum() == (total + 1) // 2  # halves are rounded up


def test_the_lineage_of_a_classifier_ends_at_preprocess(
    chain: dict[str, Outcome], client: MlflowClient
) -> None:
    shown = mammo("lineage", chain["train_classifier"].run_id).out
    above, _, below = shown.partition("used by")
    for step in ("mix", "sample", "train_generator", "preprocess"):
        assert f"{step} {chain[step].run_id}" in above
    assert f"evaluate {chain['evaluate'].run_id}" in below


def test_the_registered_model_scores_like_our_own(
    chain: dict[str, Outcome], client: MlflowClient, monkeypatch: Any
) -> None:
    import mlflow
    import numpy as np

    import mammo as package

    images = package.open_dataset(chain["preprocess"].uri).images(range(4))
    ours = package.load_classifier("models:/screening@champion").predict(images)
    mlflow.set_tracking_uri(f"sqlite:///{client.tracking_uri.removeprefix('sqlite:///')}")
    theirs = mlflow.pyfunc.load_model("models:/screening@champion").predict(images)
    np.testing.assert_allclose(theirs, ours, atol=1e-6)
    assert ours.shape == (4, 2)


def test_a_sampled_image_is_the_generators_own(
    chain: dict[str, Outcome], client: MlflowClient
) -> None:
    import numpy as np

    import mammo as package

    synthetic = package.open_dataset(chain["sample"].uri)
    row = synthetic.manifest.iloc[5]
    generator = package.load_generator(row["generator_run_id"])
    again = generator.sample(labels=[row["label"]], seeds=[int(row["sample_seed"])], steps=4)
    stored = synthetic.images([5])
    np.testing.assert_allclose(np.asarray(again), stored, atol=1 / 255)


def test_the_best_settings_of_a_study_train_a_classifier(
    chain: dict[str, Outcome], client: MlflowClient, tmp_path: Path
) -> None:
    run_id = chain["tune"].run_id
    best = client.download_artifacts(run_id, "study/best.yaml", str(tmp_path))
    again = mammo("train_classifier", config=best, reuse=True)
    assert again.code == 0, again.err
    trials = [
        run.info.run_id
        for run in client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{run_id}'")
    ]
    assert again.run_id in trials  # the winning trial itself, not computed again
    assert yaml.safe_load(Path(best).read_text())["model_name"] == "resnet10t"


def test_main_runs_every_step_as_a_child_of_one_parent(
    chain: dict[str, Outcome], client: MlflowClient
) -> None:
    settings: dict[str, Any] = {
        "preprocess__patients": 24,
        "preprocess__image_size": 32,
        "preprocess__val_fraction": 0.25,
        "train_generator__epochs": 2,
        "train_generator__channels": "8,16",
        "train_generator__attention": 0,
        "sample__count": 40,
        "sample__steps": 4,
        "train_classifier__model_name": "resnet10t",
        "train_classifier__epochs": 2,
        "tune__n_trials": 1,
        "evaluate__bootstrap": 200,
    }
    outcome = mlflow_run("main", **settings)
    assert outcome.code == 0, outcome.err[-3000:]
    query = f"tags.`mlflow.parentRunId` = '{outcome.run_id}'"
    children = client.search_runs(["0"], query)
    steps = [run.data.tags["mammo.step"] for run in children]
    # a winner without synthetic images is judged before it is promoted
    more = ["evaluate"] * ("evaluate_real_only" in {run.info.run_name for run in children})
    assert sorted(steps) == sorted([*STEPS, "train_classifier", *more])
    artifacts = {item.path for item in client.list_artifacts(outcome.run_id)}
    assert {"report.html", "preview.png", "config.yaml"} <= artifacts
