"""Notes, links and counts: what stands on top of a run, and what a parent says of its children."""

import json
import shlex
from pathlib import Path

import pytest

from mammo.cli import parse
from mammo.errors import DataError
from mammo.run import MemoryRun, Pruned, Reference, Stopped
from mammo.tracking.family import KEPT, Child, alike, children, common, counted, counts
from mammo.tracking.links import at, charts_page, compare_page
from mammo.tracking.note import LENGTH, PHANTOM, STAND_IN, command, leading, note, verdict
from mammo.tracking.telling import usual

PARENT, ONE, TWO = "a" * 32, "b" * 32, "c" * 32
FOLDS = [
    Child("fold-0", "train_classifier", ONE, "FINISHED", {"fold/auc": 0.7, "best/val/auc": 0.9}),
    Child("fold-1", "train_classifier", TWO, "FINISHED", {"fold/auc": 0.9, "best/val/auc": 0.8}),
]


def said(metrics=None, family=(), inputs=None, **settings):
    given = {"data": "d", "epochs": 5, **settings}
    place = {"experiment_id": "3", "run_id": PARENT}
    return note(
        "train_classifier",
        given,
        {"data": "", "epochs": 20},
        inputs or {},
        metrics or {},
        family=family,
        **place,
    )


def test_each_child_counts_once_by_its_last_end(tmp_path):
    parent = MemoryRun(tmp_path)
    with pytest.raises(DataError), counted(parent, "fold-0", "train_classifier"):
        raise DataError("full")
    with pytest.raises(Pruned), counted(parent, "trial_1", "train_classifier"):
        raise Pruned("hopeless")
    assert parent.last == {"children/finished": 0, "children/failed": 1, "children/killed": 1}
    with counted(parent, "fold-0", "train_classifier") as child:
        child.run_id, child.metrics = ONE, {"fold/auc": 0.5}
    assert parent.last == {"children/finished": 1, "children/failed": 0, "children/killed": 1}
    first, second = children(parent.folder)
    assert first == Child("fold-0", "train_classifier", ONE, "FINISHED", {"fold/auc": 0.5})
    assert (second.name, second.status) == ("trial_1", "KILLED")


def test_a_line_that_a_kill_cut_off_hides_no_other_child(tmp_path):
    parent = MemoryRun(tmp_path)
    with counted(parent, "fold-0", "train_classifier"):
        pass
    with (parent.folder / KEPT).open("a") as file:
        file.write('{"name": "fold-1", "st')
    for name in ("fold-2", "fold-3"):
        with counted(parent, name, "train_classifier"):
            pass
    assert [each.name for each in children(parent.folder)] == ["fold-0", "fold-2", "fold-3"]
    assert parent.last["children/finished"] == 3


def test_a_stop_of_the_process_ends_no_child(tmp_path):
    parent = MemoryRun(tmp_path)
    with pytest.raises(Stopped), counted(parent, "fold-0", "train_classifier"):
        raise Stopped(15)
    assert (parent.history, children(parent.folder)) == ([], [])


def test_children_of_several_steps_have_no_mean():
    assert common([*FOLDS, Child("e", "evaluate", "", "FINISHED", {"fold/auc": 0.1})]) == {}
    failed = Child("fold-2", "train_classifier", "", "FAILED")
    assert common([*FOLDS, failed]) == {"fold/auc": [0.7, 0.9], "best/val/auc": [0.9, 0.8]}
    assert counts([*FOLDS, failed])["children/failed"] == 1


def test_children_that_can_be_compared_are_those_of_one_step():
    failed = Child("fold-2", "train_classifier", "d" * 32, "FAILED")
    assert alike([Child("e", "evaluate", "e" * 32, "FINISHED"), *FOLDS, failed]) == FOLDS
    assert alike([]) == []


def test_a_parents_note_has_a_row_a_child_with_its_link_mean_and_sd():
    lines = said({"cv/auc_mean": 0.8, "cv/auc_low": 0.7, "cv/auc_high": 0.9}, FOLDS).splitlines()
    assert "| cv/auc_mean | 0.8 (0.7 to 0.9) |" in lines
    assert "| run | step | status | fold/auc | best/val/auc |" in lines
    row = f"| [fold-0](#/experiments/3/runs/{ONE}) | train_classifier | FINISHED | 0.7 | 0.9 |"
    assert row in lines
    assert "| **mean** | | | 0.8 | 0.85 |" in lines
    assert "| **sd** | | | 0.1414 | 0.07071 |" in lines  # 0.2 and 0.1 over the root of 2
    (told,) = [line for line in lines if line.startswith("Children: ")]
    assert told.startswith("Children: 2 finished, 0 failed, 0 killed; [charts of the children](#/e")
    assert compare_page("3", [ONE, TWO]) in told


def test_a_note_with_many_children_fits_into_a_tag_and_keeps_the_command():
    metrics = {f"best/val/metric_{number}": number / 7 for number in range(9)}
    name = "a trial with a name as long as somebody may make it"
    family = [
        Child(f"trial_{number} {name}", "train_classifier", f"{number:032}", "FINISHED", metrics)
        for number in range(200)
    ]
    text = said({}, family)
    assert len(text) <= LENGTH
    assert text.endswith("mammo train_classifier --data d --epochs 5\n```")
    shown = sum(line.startswith("| [trial_") for line in text.splitlines())
    assert shown > 0 and f"… and {200 - shown} more" in text


def test_the_command_is_one_that_the_command_line_reads_back():
    asked = ["--data", "a b", "--lr", "1e-05", "--epochs", "7"]
    given = parse("train_classifier", asked)
    words = command("train_classifier", given, usual("train_classifier"))
    assert words == "mammo train_classifier --data 'a b' --lr 1e-05 --epochs 7"
    assert parse("train_classifier", shlex.split(words)[2:]) == given


def test_settings_of_the_steps_within_a_step_are_a_part_of_its_command():
    given = parse("tune", ["--data", "d", "--train_classifier.epochs", "3"])
    words = command("tune", given, usual("tune"))
    assert words == "mammo tune --data d --train_classifier.epochs 3"


def test_a_run_of_phantoms_or_stand_ins_says_so(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "phantom-synthetic"}))
    inputs = {"data": [Reference("runs:/x", tmp_path, "0123456789abcdef", ONE)]}
    assert PHANTOM in said(inputs=inputs)
    assert f"[phantom-synthetic (0123456789ab)](#/runs/{ONE})" in said(inputs=inputs)
    assert PHANTOM in said(dataset="phantom")
    assert PHANTOM not in said(dataset="mias")
    assert STAND_IN in said({"fidelity/random/kid": 0.1})
    assert STAND_IN in said({"best/val/kid": 0.1}, extractor="random")
    assert STAND_IN not in said({"fidelity/resnet18/kid": 0.1}, extractor="resnet18@weights")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-0.01, 0.2, "no difference is shown"), (0.01, 0.2, "better"), (-0.2, -0.01, "worse")],
)
def test_the_verdict_is_that_of_the_interval(low, high, word):
    told = verdict({"delta/auc": 0.05, "delta/auc_low": low, "delta/auc_high": high})
    assert f"**{word}.**" in told
    assert verdict({"delta/auc": 0.05}).endswith("without an interval it shows nothing.")


def test_what_a_reader_looks_for_comes_first():
    names = ["val/loss", "count/benign", "test/auc_low", "test/auc", "best/val/auc", "delta/auc"]
    assert leading(names, 4) == ["test/auc", "delta/auc", "best/val/auc", "val/loss"]


def test_links_lead_to_a_server_or_say_how_to_start_one():
    page = charts_page("3", PARENT)
    assert at("http://lab:5000/", page) == f"http://lab:5000/{page}"
    assert at("sqlite:///mlflow.db", page) == (
        f"http://127.0.0.1:5000/{page} (of `mlflow ui --backend-store-uri sqlite:///mlflow.db`)"
    )


def test_no_note_holds_the_password_of_an_address():
    words = command("tune", {"storage": "postgresql+psycopg2://anna:p%40ss@db/optuna"}, {})
    assert words == "mammo tune --storage 'postgresql+psycopg2://anna:***@db/optuna'"


def test_what_a_parent_keeps_of_its_children_is_in_its_own_folder(tmp_path: Path):
    parent = MemoryRun(tmp_path)
    with counted(parent, "one", "mix"):
        pass
    assert [path.name for path in sorted(parent.folder.iterdir())] == ["family.jsonl"]
