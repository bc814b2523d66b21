"""Families of runs compared by fold and seed, through the command too, on hand-made predictions."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from mammo.cli import main
from mammo.errors import DataError
from mammo.evaluation import families
from mammo.evaluation.ranking import auc


def family(effect, folds=5, seeds=(0, 1), patients=60, split="scored"):
    """Predictions of every patient in its fold, by each seed; the noise is the patient's own."""
    frames = []
    for seed in seeds:
        rng = np.random.default_rng(7)
        positive = np.arange(patients) % 3 == 0
        own = rng.normal(size=patients)
        noise = np.random.default_rng([seed, round(10 * effect)]).normal(size=patients)
        score = 1 / (1 + np.exp(-(effect * positive + own + 0.3 * noise)))
        frame = pd.DataFrame({"image_id": [f"i{each:03d}" for each in range(patients)]})
        frame["group_id"] = [f"p{each:03d}" for each in range(patients)]
        frame["split"], frame["seed"] = split, seed
        frame["fold"] = np.arange(patients) // 3 % folds if folds else -1
        frame["label"] = np.where(positive, "malignant", "benign")
        frame["label_id"] = positive.astype(int)
        frames.append(frame.assign(**{"score/benign": 1 - score, "score/malignant": score}))
    return pd.concat(frames, ignore_index=True)


def area(frame):
    return auc(frame["label"] == "malignant", frame["score/malignant"])


def test_every_run_has_its_own_metrics():
    frame = family(1.0)
    table = families.of_runs(frame, "malignant", "mean").set_index(["fold", "seed"])
    assert len(table) == 10
    mine = frame[(frame["fold"] == 2) & (frame["seed"] == 1)]
    assert table.loc[(2, 1), "auc"] == pytest.approx(area(mine))


def test_shared_runs_are_compared_by_every_test():
    from scipy.stats import ttest_rel, wilcoxon

    ours, theirs = family(1.5), family(0.5, seeds=(1, 2))
    tables = [families.of_runs(each, "malignant", "mean") for each in (ours, theirs)]
    found = families.paired(*tables).set_index("metric").loc["auc"]
    one, other = (table[table["seed"] == 1].set_index("fold")["auc"].to_numpy() for table in tables)
    assert found["pairs"] == 5
    assert found["difference"] == pytest.approx(np.mean(one - other))
    assert found["model_sd"] == pytest.approx(np.std(one, ddof=1))
    assert found["p_t"] == pytest.approx(ttest_rel(one, other).pvalue)
    assert found["p_wilcoxon"] == pytest.approx(wilcoxon(one - other).pvalue)
    # the corrected test is Student's with 1/5 + 1/4 for 1/5
    t = ttest_rel(one, other).statistic * math.sqrt((1 / 5) / (1 / 5 + 1 / 4))
    half = (found["high"] - found["low"]) / 2
    assert found["difference"] / half * 2.776445 == pytest.approx(t, rel=1e-5)
    assert found["p"] > found["p_t"]


def test_the_corrected_test_counts_the_images_really_trained_on():
    """Twelve of 60 images are scored; of the rest the baseline trained on 40, the model on 32."""
    ours, theirs = family(1.5), family(0.5)
    plain = [families.of_runs(each, "malignant", "mean") for each in (ours, theirs)]
    told = [
        families.of_runs(each.assign(trained_on=count), "malignant", "mean")
        for each, count in ((ours, 32), (theirs, 40))
    ]
    assert told[0]["ratio"].tolist() == [12 / 32] * 10
    halves = []
    for tables in (plain, told, [plain[0], told[1]]):
        found = families.paired(*tables).set_index("metric").loc["auc"]
        halves.append((found["high"] - found["low"]) / 2)
    wider = [math.sqrt((1 / 5 + ratio) / (1 / 5 + 1 / 4)) for ratio in (12 / 32, 12 / 40)]
    assert [half / halves[0] for half in halves[1:]] == pytest.approx(wider)


def test_seeds_of_a_hold_out_have_no_corrected_test():
    tables = [
        families.of_runs(family(effect, folds=0, seeds=range(5)), "malignant", "mean")
        for effect in (1.5, 0.5)
    ]
    found = families.paired(*tables).set_index("metric").loc["auc"]
    assert math.isnan(found["p"]) and found["p_t"] < 0.05
    assert found["p_wilcoxon"] == pytest.approx(2 / 2**5)  # all five seeds agree


def test_families_without_a_shared_run_are_refused():
    tables = [
        families.of_runs(family(1.0, seeds=seeds), "malignant", "mean") for seeds in ((0,), (1,))
    ]
    with pytest.raises(DataError, match="share no fold and seed"):
        families.paired(*tables)


def test_folds_of_other_patients_are_no_pairs():
    ours, theirs = family(1.0), family(0.5)
    theirs["fold"] = (theirs["fold"] + 1) % 5
    tables = [families.of_runs(each, "malignant", "mean") for each in (ours, theirs)]
    with pytest.raises(DataError, match="fold 0 with seed 0 has other images in the two"):
        families.paired(*tables)


def test_the_command_compares_two_files_and_writes_its_tables(tmp_path, capsys):
    ours, theirs = family(1.5), family(0.5)
    (tmp_path / "probe").mkdir()
    chosen = family(9.0, split="val")  # what chose thresholds is left out
    pd.concat([ours, chosen]).to_parquet(tmp_path / "ours.parquet")
    theirs.to_parquet(tmp_path / "probe" / "predictions.parquet")
    words = [str(tmp_path / "ours.parquet"), str(tmp_path / "probe"), "--bootstrap", "50"]
    assert main(["compare", *words, "--output", str(tmp_path / "out")]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["pairs"] == 10
    means = [each.groupby("image_id")["score/malignant"].mean() for each in (ours, theirs)]
    label = ours.drop_duplicates("image_id").set_index("image_id")["label"] == "malignant"
    expected = auc(label, means[0]) - auc(label, means[1])
    assert said["delta/auc"] == pytest.approx(expected)
    assert said["verdict"] in ("superior", "inconclusive")
    assert len(pd.read_csv(tmp_path / "out" / "runs.csv")) == 20
    table = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index("metric")
    assert table.loc["auc", "difference"] > 0
    before = (tmp_path / "out" / "runs.csv").read_bytes()
    assert main(["compare", *words[::-1][2:], *words[2:], "--output", str(tmp_path / "out")]) == 2
    assert "holds runs.csv already; name another folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "runs.csv").read_bytes() == before


def test_several_arms_share_one_baseline_and_one_error_rate(tmp_path, capsys):
    from statistics import NormalDist

    effects = {"base": 0.5, "strong": 2.5, "other": 0.6}
    for name, effect in effects.items():
        family(effect).to_parquet(tmp_path / f"{name}.parquet")
    strong, other, base = (tmp_path / f"{name}.parquet" for name in ("strong", "other", "base"))
    words = [f"strong={strong}", str(other), str(base), "--bootstrap", "50", "--margin", "0.3"]
    assert main(["compare", *words, "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    said = json.loads(told.splitlines()[-1])["arms"]
    assert said["strong"]["verdict"] == "superior"
    assert "strong: AUC of the pooled patients: +0." in told
    table = pd.read_csv(tmp_path / "out" / "pooled.csv").set_index("arm")
    assert table.index[0] == "strong" and table["pairs"].tolist() == [10, 10]
    smaller, larger = sorted(table["p"])
    assert sorted(table["p_holm"]) == pytest.approx([2 * smaller, max(2 * smaller, larger)])
    # the interval of a normal estimate: p tells the standard error, and that the other two
    normal = NormalDist()
    for row in table.itertuples():
        error = abs(row.auc) / normal.inv_cdf(1 - row.p / 2)
        one_sided = 1 - normal.cdf((0.3 - abs(row.auc)) / error)
        assert row.p_equivalent == pytest.approx(one_sided, rel=1e-6)
        power = normal.inv_cdf(1 - 0.025 / 2) + normal.inv_cdf(0.8)
        assert row.detectable == pytest.approx(power * error)
    metrics = pd.read_csv(tmp_path / "out" / "comparison.csv")
    p = metrics[metrics["metric"] == "auc"].set_index("arm")
    assert table["p_folds"].to_dict() == pytest.approx(p["p"].to_dict())
    assert sorted(p["p_t_holm"])[0] == pytest.approx(2 * sorted(p["p_t"])[0])
    assert set(pd.read_csv(tmp_path / "out" / "runs.csv")["arm"]) == {*p.index, "baseline"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png;base64," in page and "superior" in page and "http" not in page


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["one"], "there is no baseline beside 'one'"),
        (["a=x", "a=y", "z"], "two arms are called 'a'"),
        (["x", "y", "--margin", "0"], "margin 0 is no difference of AUCs"),
        (["x", "y", "--bootstrap", "0"], "bootstrap 0 is no number of draws"),
    ],
)
def test_words_that_make_no_comparison_are_refused_in_one_line(capsys, words, line):
    assert main(["compare", *words]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"group_id": None}, "lack the columns group_id"),
        ({"score/malignant": np.nan}, "120 predictions without a score"),
        ({"score/malignant": None, "score/benign": None}, "lack the columns score/<class>"),
        (
            {"score/malignant": None, "score/other": 0.5},
            "the classes of model are benign/malignant, the baseline's",
        ),
    ],
)
def test_predictions_that_cannot_be_compared_are_refused_in_one_line(
    tmp_path, capsys, changed, line
):
    good = family(1.0)
    bad = good.assign(**{name: value for name, value in changed.items() if value is not None})
    bad = bad.drop(columns=[name for name, value in changed.items() if value is None])
    good.to_parquet(tmp_path / "good.parquet")
    bad.to_parquet(tmp_path / "bad.parquet")
    assert main(["compare", str(tmp_path / "good.parquet"), str(tmp_path / "bad.parquet")]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1


def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "broken.parquet").write_text("no table")
    assert main(["compare", *[str(tmp_path / "broken.parquet")] * 2]) == 2
    told = capsys.readouterr().err
    assert "broken.parquet is no table of predictions" in told and told.count("\n") == 1


def test_a_file_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["compare", *[str(tmp_path / "nowhere.parquet")] * 2]) == 2
    assert "nowhere.parquet does not exist; give a run" in capsys.readouterr().err


def test_a_run_named_twice_is_refused(tmp_path, capsys):
    family(1.0).to_parquet(tmp_path / "one.parquet")
    name = str(tmp_path / "one.parquet")
    assert main(["compare", f"{name},{name}", name]) == 2
    assert "twice with fold 0 and seed 0; name each run once" in capsys.readouterr().err
