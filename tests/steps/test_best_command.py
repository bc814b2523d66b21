"""`mammo best` on runs of a real MLflow store whose epochs are known."""

import json

import pandas as pd
import pytest

from mammo.cli import main


@pytest.fixture
def runs(store):
    """Ids by name: two trainings, one of them evaluated, and a parent with a fold's run."""
    from mammo.tracking import Tracking

    tracking = Tracking()

    def made(name, step, epochs=(), params=(), parent="", tags=(), **metrics):
        run_id = tracking.create_run(name, step, parent)
        for epoch, values in enumerate(epochs, 1):
            for metric, value in values.items():
                tracking.client.log_metric(run_id, metric, value, step=epoch)
        for metric, value in metrics.items():
            tracking.client.log_metric(run_id, metric.replace("__", "/"), value)
        for key, value in dict(params).items():
            tracking.client.log_param(run_id, key, value)
        for key, value in dict(tags).items():
            tracking.client.set_tag(run_id, key, value)
        tracking.set_status(run_id, "FINISHED")
        return run_id

    def epochs(aucs, losses):
        return [
            {"train/loss": 1.0, "val/auc": auc, "val/loss": loss}
            for auc, loss in zip(aucs, losses, strict=True)
        ]

    given = {"monitor": "val/auc,val/loss", "loss": "ce", "seed": "0"}
    found = {
        "slow": made(
            *("slow", "train_classifier", epochs([0.6, 0.8, 0.8, 0.7], [0.9, 0.5, 0.6, 0.4])),
            {**given, "lr": "0.1", "effective.lr": "0.01", "run_name": "slow"},
        )
    }
    # the second epoch gains less than min_delta, so the first was kept
    found["fast"] = made(
        *("fast", "train_classifier", epochs([0.700, 0.705], [0.3, 0.35])),
        {**given, "lr": "0.1", "run_name": "fast"},
        best__val__auc=0.700,
    )
    tags = {"mammo.input.model": found["slow"]}
    found["judged"] = made("judged", "evaluate", tags=tags, test__auc=0.77, test__kappa=0.1)
    found["parent"] = made("all", "train_classifier", params=given, oof__auc=0.6)
    found["fold"] = made(
        *("fold-0", "train_classifier", epochs([0.9], [0.2]), {**given, "folds": "0", "lr": "0.1"}),
        parent=found["parent"],
        fold__auc=0.66,
    )
    return found


def told(tmp_path, capsys, *words):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
    assert main(["best", *words, "--output", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    table = pd.read_csv(path)
    assert json.loads(printed[-1])["runs"] == len(table)
    return table.set_index("run"), printed


def test_each_training_has_a_row_with_its_best_epoch_and_what_sets_it_apart(tmp_path, capsys, runs):
    table, printed = told(tmp_path, capsys, runs["slow"], runs["fast"], runs["parent"])
    assert table.index.tolist() == ["slow", "fast", "fold-0"]
    assert table["epoch"].tolist() == [2, 1, 1]  # the earliest of two; the one that was kept
    assert table["epochs"].tolist() == [4, 2, 1]
    assert table["val/auc"].tolist() == [0.8, 0.7, 0.9]
    assert table["val/loss"].tolist() == [0.5, 0.3, 0.2]  # of that epoch
    assert table.loc["slow", "test/auc"] == 0.77 and table["test/auc"].notna().sum() == 1
    assert table.loc["fold-0", "fold/auc"] == 0.66
    assert "test/kappa" not in table
    assert table["lr"].tolist() == [0.01, 0.1, 0.1]  # the effective one
    assert not {"loss", "seed", "run_name", "effective.lr"} & set(table)  # equal, or no cause
    assert printed[0].startswith("| run | run_id | monitor | epoch | epochs | val/auc |")
    assert printed[2].startswith(f"| slow | {runs['slow']} | val/auc | 2 | 4 | 0.8 |")


def test_one_metric_for_all_and_a_whole_experiment(tmp_path, capsys, runs):
    table, _ = told(tmp_path, capsys, "Default", "--monitor", "val/loss")
    assert table.index.tolist() == ["slow", "fast", "fold-0"]  # no parent, no evaluation
    assert table["epoch"].tolist() == [4, 1, 1]
    assert table["val/auc"].tolist() == [0.7, 0.7, 0.9]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["{judged}"], "(evaluate) has no epochs; give one of train_classifier or"),
        (["{slow}", "--monitor", "val/kid"], "has no metric val/kid; it has train/loss, val/auc"),
        (["nowhere"], "'nowhere' is neither a run nor an experiment"),
        (["{slow}", "--output", "{there}"], "exists already; name a new file"),
    ],
)
def test_what_cannot_be_tabulated_is_refused_in_one_line(tmp_path, capsys, runs, words, line):
    (tmp_path / "there.csv").write_text("kept")
    given = {**runs, "there": tmp_path / "there.csv"}
    assert main(["best", *(word.format(**given) for word in words)]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1
    assert (tmp_path / "there.csv").read_text() == "kept"
