"""`mammo compare` and `mammo best` on runs that were trained, in a real MLflow store."""

import json

import doors
import pandas as pd
import pytest
from classifier_data import TINY, write


@pytest.mark.doors
def test_families_that_were_trained_are_compared_and_tabulated(tmp_path, store):
    data = write(tmp_path / "datasets", folds=3)
    settings = {"data": data.folder, "folds": "all", "val_fraction": 0.25, **TINY}
    made = {
        name: doors.here("train_classifier", lr=lr, **settings)
        for name, lr in (("still", 1e-9), ("learned", 0.01))
    }
    still, learned = (made[name].run_id for name in ("still", "learned"))
    alone = doors.here("compare", learned, still, bootstrap=50, output=tmp_path / "one").line
    assert alone["pairs"] == 3 and alone["verdict"] in ("superior", "inconclusive")
    expected = made["learned"].metrics["oof/auc"] - made["still"].metrics["oof/auc"]
    assert alone["delta/auc"] == pytest.approx(expected)
    both = doors.here(
        "compare", f"learned={learned}", f"again=runs:/{still}", still, bootstrap=50, margin=0.2
    ).line["arms"]
    assert both["learned"]["delta/auc"] == pytest.approx(expected)
    assert both["learned"]["delta/p_holm"] == pytest.approx(min(1, 2 * alone["delta/p"]))
    assert (both["again"]["delta/auc"], both["again"]["verdict"]) == (0, "equivalent")

    table = tmp_path / "best.csv"
    assert doors.here("best", still, learned, output=table).line["runs"] == 6
    rows = pd.read_csv(table).set_index("run_id")
    assert set(rows["lr"]) == {1e-9, 0.01} and set(rows["folds"]) == {0, 1, 2}
    assert {"data", "augment", "batch_size"}.isdisjoint(rows)  # the same for all
    runs = pd.read_csv(tmp_path / "one" / "runs.csv")
    of_learned = runs[runs["arm"] == "model"].sort_values("fold")["auc"]
    own = rows[rows["lr"] == 0.01].sort_values("folds")["fold/auc"]
    assert own.tolist() == pytest.approx(of_learned.tolist())
    for run_id, row in rows.iterrows():
        (model,) = tmp_path.glob(f"mlruns/**/{run_id}/artifacts/model/model.json")
        about = json.loads(model.read_text())
        assert row["epoch"] == about["epoch"]
        assert row["val/auc"] == pytest.approx(about["metrics"]["val/auc"])
