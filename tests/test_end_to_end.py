"""Every entry point through `mlflow run` on the stack, each fed by the output of the one before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doors import Outcome, here, mammo, mlflow_run
from mlflow import MlflowClient
from servers import TrackingServer

pytestmark = pytest.mark.doors

SMALL_NET = {"channels": "8,16", "attention": 0}


@pytest.fixture(scope="module")
def state(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: TrackingServer
) -> Iterator[Path]:
    """One experiment on the server, and one work folder, for the whole chain."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "chain")
        # `mlflow run` prints links to a server's pages behind the step's last line
        patch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
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
def client(
    chain: dict[str, Outcome], state: Path, mlflow_server: TrackingServer, monkeypatch: Any
) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "chain")
    monkeypatch.setenv("MAMMO_HOME", str(state / "home"))
    return MlflowClient(tracking_uri=mlflow_server.url)


def children(client: MlflowClient, run_id: str) -> list[Any]:
    """The runs below a parent."""
    place = client.get_run(run_id).info.experiment_id
    return list(client.search_runs([place], f"tags.`mlflow.parentRunId` = '{run_id}'"))


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


def objects(server: TrackingServer, run_id: str) -> dict[str, int]:
    """Bytes of each file of a run in the bucket, by its path."""
    pages = server.minio.client().get_paginator("list_objects_v2").paginate(Bucket=server.bucket)
    found = [each for page in pages for each in page.get("Contents", [])]
    marker = f"/{run_id}/artifacts/"
    return {
        each["Key"].partition(marker)[2]: each["Size"] for each in found if marker in each["Key"]
    }


def rows(server: TrackingServer, run_id: str) -> tuple[str, str, int, int]:
    """Status, step and numbers of settings and metrics of a run in the database."""
    [found] = server.postgres.query(
        "SELECT status, (SELECT value FROM tags t WHERE t.run_uuid = r.run_uuid"
        " AND key = 'mammo.step'), (SELECT count(*) FROM params p WHERE p.run_uuid = r.run_uuid),"
        " (SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid)"
        " FROM runs r WHERE run_uuid = %s",
        run_id,
    )
    return found  # type: ignore[return-value]


# What each leaves beside config.yaml; sample and mix write data sets as preprocess does.
FILES = {
    "preprocess": "dataset/dataset.json",
    "train_generator": "model/model.json",
    "sample": "dataset/dataset.json",
    "mix": "dataset/dataset.json",
    "train_classifier": "model/model.json",
    "evaluate": "report.html",
    "tune": "study/best.yaml",
    "promote": "config.yaml",
}


@pytest.mark.parametrize("step", STEPS)
def test_rows_are_in_postgresql_and_files_in_the_bucket(
    step: str, chain: dict[str, Outcome], client: MlflowClient, mlflow_server: TrackingServer
) -> None:
    run_id = chain[step].run_id
    status, named, params, metrics = rows(mlflow_server, run_id)
    assert (status, named) == ("FINISHED", step)
    assert params >= 4
    assert metrics >= len(METRICS.get(step, ()))
    there = objects(mlflow_server, run_id)
    assert {"config.yaml", FILES[step]} <= there.keys()
    assert there[FILES[step]] > 0


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
    mlflow.set_tracking_uri(client.tracking_uri)
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
    trials = [run.info.run_id for run in children(client, run_id)]
    assert again.run_id in trials  # the winning trial itself, not computed again
    assert yaml.safe_load(Path(best).read_text())["model_name"] == "resnet10t"


def test_the_work_folder_is_a_cache_and_nothing_lies_beside_it(
    chain: dict[str, Outcome], client: MlflowClient, state: Path, monkeypatch: Any
) -> None:
    """A step in an empty one finds all of it on the server, to the bit."""
    assert [each.name for each in state.iterdir()] == ["home"]
    assert not [each for each in (state / "home").glob("spool/*") if each.is_dir()]
    monkeypatch.setenv("MAMMO_HOME", str(state / "home" / "another"))
    inputs = {"model": "train_classifier", "baseline": "real_only", "data": "preprocess"}
    named = {name: chain[step].uri for name, step in inputs.items()}
    again = here("evaluate", **named, bootstrap=200, reuse=False, synthetic=chain["sample"].uri)
    assert again.metrics == chain["evaluate"].metrics
    assert again.run_id != chain["evaluate"].run_id


def test_main_runs_every_step_as_a_child_of_one_parent(
    chain: dict[str, Outcome], client: MlflowClient, mlflow_server: TrackingServer
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
        "promote__name": "chained",
    }
    outcome = mlflow_run("main", **settings)
    assert outcome.code == 0, outcome.err[-3000:]
    below = children(client, outcome.run_id)
    steps = [run.data.tags["mammo.step"] for run in below]
    # a winner without synthetic images is judged before it is promoted
    more = ["evaluate"] * ("evaluate_real_only" in {run.info.run_name for run in below})
    assert sorted(steps) == sorted([*STEPS, "train_classifier", *more])
    artifacts = {item.path for item in client.list_artifacts(outcome.run_id)}
    assert {"report.html", "preview.png", "config.yaml"} <= artifacts
    assert rows(mlflow_server, outcome.run_id)[:2] == ("FINISHED", "main")
    assert objects(mlflow_server, outcome.run_id)["report.html"] > 10_000
    assert {rows(mlflow_server, run.info.run_id)[0] for run in below} == {"FINISHED"}
