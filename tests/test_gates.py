"""Each gate of a promotion alone: a run, a number or a patient that it must see, and one it may."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small

from mammo.data.dataset import Dataset
from mammo.errors import DataError
from mammo.lineage import COMMIT, DIRTY, WITHDRAWN, Graph, Node
from mammo.models import SavedModel, save_model
from mammo.promotion import gates, rivals
from mammo.promotion.case import Case
from mammo.registrar import Evaluation, Version
from mammo.run import Reference

CLEAN = {COMMIT: "c" * 40, DIRTY: "false"}
DATA = "d" * 32


class Books:
    """A Registrar whose runs, evaluations and files are given."""

    def __init__(
        self,
        nodes: Sequence[Node],
        evaluations: Mapping[str, list[Evaluation]],
        held: Version | None = None,
        files: Path = Path("/nowhere"),
    ) -> None:
        self.graph, self._evaluations, self._held, self._files = (
            Graph(nodes),
            evaluations,
            held,
            files,
        )

    def evaluations(self, run_id: str) -> list[Evaluation]:
        return self._evaluations.get(run_id, [])

    def holder(self, name: str, alias: str) -> Version | None:
        return self._held

    def has(self, run_id: str, path: str) -> bool:
        return (self._files / run_id / path).exists()

    def copied(self, run_id: str, path: str, into: Path) -> Path:
        place = into / run_id / path
        place.parent.mkdir(parents=True, exist_ok=True)
        source = self._files / run_id / path
        if not place.exists():
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, place)
        return place


def node(run_id: str, step: str, *, status: str = "FINISHED", marks: Any = CLEAN, **inputs: str):
    named = {name: value.split(",") for name, value in inputs.items()}
    return Node(run_id, step, "", status, inputs=named, marks=dict(marks))


PIPELINE = (
    node("pre", "preprocess"),
    node("gen", "train_generator", data="pre"),
    node("sam", "sample", generator="gen"),
    node("mix", "mix", real="pre", synthetic="sam"),
    node("clf", "train_classifier", data="mix"),
)


def case(
    *changed: Node,
    metrics: Mapping[str, float] | None = None,
    theirs: Mapping[str, float] | None = None,
    data: Dataset | None = None,
    folder: Path = Path("/nowhere"),
    kind: str = "classifier",
) -> Case:
    """The classifier `clf`, or the generator `gen`, with its evaluation and what it was made of."""
    nodes = {each.run_id: each for each in (*PIPELINE, *changed)}
    run_id = "clf" if kind == "classifier" else "gen"
    inputs = {"model" if kind == "classifier" else "synthetic": ["x"]}
    digest = data.digest if data else DATA

    def judged(name: str, found: Mapping[str, float] | None) -> list[Evaluation]:
        return [Evaluation(name, digest, "test", "", "", dict(found or {}), inputs)]

    held = Version("screening", "1", "old", {"mammo.digest": "o"}) if theirs is not None else None
    books: Any = Books(
        list(nodes.values()),
        {run_id: judged("eva", metrics), "old": judged("before", theirs)},
        held,
        folder,
    )
    found = Case(
        books,
        Reference(f"runs:/{run_id}/model", folder / run_id / "model", "digest", run_id),
        kind=kind,
        name="screening",
        alias="champion",
        data=Reference("", data.folder, digest) if data else None,
        scratch=folder / "scratch",
    )
    if not data:
        found.__dict__["data"] = type("D", (), {"digest": DATA, "name": "d", "folder": folder})
    return found


def reason(gate: Any, of: Case, **asked: Any) -> str:
    with pytest.raises(DataError) as refused:
        gate(of, **asked)
    return str(refused.value)


def test_a_lineage_that_ends_at_preprocess_is_complete() -> None:
    assert gates.lineage(case(), outside=[]) == "5 runs, all finished"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (node("gen", "train_generator", status="FAILED", data="pre"), "train_generator gen is FAI"),
        (
            node("gen", "train_generator", data="abc"),
            "data abc of train_generator gen is of no run",
        ),
        (node("sam", "sample"), "sample sam names no input"),
        (node("clf", "train_classifier", data="mix", weights="w1"), "weights w1 of train_classif"),
    ],
)
def test_a_lineage_with_a_gap_is_refused_by_its_name(changed: Node, expected: str) -> None:
    found = reason(gates.lineage, case(changed), outside=[])
    assert found.startswith("the lineage is not complete: ")
    assert expected in found


def test_pretrained_weights_may_come_from_outside() -> None:
    of = case(node("clf", "train_classifier", data="mix", weights="sha256"))
    assert gates.lineage(of, outside=["weights"]) == (
        "5 runs, all finished, weights sha256 from outside"
    )


def test_what_was_withdrawn_is_refused_wherever_it_stands() -> None:
    assert gates.withdrawn(case()) == "nothing behind it was withdrawn"
    of = case(node("gen", "train_generator", marks={WITHDRAWN: "p7"}, data="pre"))
    assert reason(gates.withdrawn, of) == (
        "train_generator gen was withdrawn with patient p7; train again without"
    )
    of = case(node("eva", "evaluate", marks={WITHDRAWN: "p7"}, model="clf"))
    assert "evaluate eva was withdrawn" in reason(gates.withdrawn, of)


STRICT = {"dirty": "refuse", "unknown": "refuse"}


def test_a_commit_is_asked_of_every_run_and_of_the_evaluation() -> None:
    judged = node("eva", "evaluate", model="clf")
    assert gates.commit(case(judged), **STRICT) == "commit cccccccccccc"
    dirty = node("gen", "train_generator", marks={**CLEAN, DIRTY: "true"}, data="pre")
    silent = node("eva", "evaluate", marks={COMMIT: "unknown", DIRTY: "unknown"}, model="clf")
    assert reason(gates.commit, case(dirty, silent), **STRICT) == (
        "code that is in no commit made train_generator gen: commit it and run them again; "
        "the commit of evaluate eva is unknown: run them from a git checkout of mammo"
    )
    found = gates.commit(case(dirty, silent), dirty="allow", unknown="allow")
    assert found == "commit cccccccccccc; 1 of a changed tree, 1 unknown"


def test_bounds_hold_at_their_ends_and_for_no_nan() -> None:
    asked = {"a": {"min": 0.5, "max": 0.7}, "b": {"max": 0.1}}
    assert gates.within({"a": 0.5, "b": 0.1}, asked) == (
        "a 0.5 (min 0.5), a 0.5 (max 0.7), b 0.1 (max 0.1)"
    )
    with pytest.raises(DataError) as refused:
        gates.within({"a": 0.8, "b": float("nan")}, asked)
    assert str(refused.value) == (
        "a is 0.8, policy asks for max 0.7; b is nan, policy asks for max 0.1"
    )


GROUPS = {
    "test/auc": 0.8,
    "test/auc/malignant": 0.1,  # a class, no group
    "test/age/under_50/auc": 0.62,
    "test/age/50_to_69/auc": 0.81,
    "test/age/50_to_69/auc_low": 0.1,
}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"min": 0.7}, "auc of age under_50 is 0.620, policy asks for 0.700"),
        ({"below": 0.1}, "auc of age under_50 is 0.620, more than 0.100 below the 0.800 of all"),
        ({"required": ["race"]}, "race was not judged apart: add it to evaluate's --groups"),
    ],
)
def test_a_group_that_is_worse_off_is_named(asked: dict[str, Any], expected: str) -> None:
    lax = {"metric": "auc", "min": 0.5, "below": 0.2, "required": ["age"]}
    of = case(metrics=GROUPS)
    assert gates.subgroups(of, **lax) == "2 groups, the lowest auc 0.620 of age under_50"
    assert reason(gates.subgroups, of, **{**lax, **asked}).startswith(expected)


def test_no_audit_of_privacy_is_said_and_the_policy_decides() -> None:
    asked = {"bounds": {"privacy/copies_high": {"max": 0.01}}}
    silent = case(kind="generator", metrics={"fidelity/x/kid": 0.1})
    assert gates.privacy(silent, absent="allow", **asked).startswith("no audit: ")
    assert reason(gates.privacy, silent, absent="refuse", **asked).startswith("no audit: ")
    audited = case(kind="generator", metrics={"privacy/copies_high": 0.02})
    assert reason(gates.privacy, audited, absent="allow", **asked) == (
        "privacy/copies_high is 0.02, policy asks for max 0.01"
    )


def test_a_generator_must_be_nearer_by_more_than_chance() -> None:
    """1.96 standard errors of a difference of two with sd 0.003 and 0.004 are 0.0098."""
    old = {"fidelity/x/kid": 0.050, "fidelity/x/kid_sd": 0.003}

    def against(kid: float) -> Case:
        found = {"fidelity/x/kid": kid, "fidelity/x/kid_sd": 0.004}
        of = case(kind="generator", metrics=found, theirs=old)
        of.__dict__["saved"] = type("S", (), {"digest": "new"})
        return of

    assert "at least +0.0002 (95 %)" in rivals.nearer(against(0.040), margin=0.0)
    assert reason(rivals.nearer, against(0.0405), margin=0.0).endswith(
        "policy asks for more than 0"
    )


# ---- leaks: a dataset whose patients p0 and p1 are the test


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    rows = small.real_rows({"benign": [1, 1, 1], "malignant": [1, 1, 1]})
    for row in rows:
        row["split"] = "test" if row["group_id"].endswith("0") else "train"
    return small.dataset(tmp_path / "datasets", rows)


def saved(
    folder: Path, run_id: str, patients: Sequence[str], seen: Any = (), **about: Any
) -> SavedModel:
    import torch

    rows = small.real_rows({"benign": [1, 1, 1], "malignant": [1, 1, 1]})
    training = small.frame([row for row in rows if row["group_id"] in patients])
    return save_model(
        folder / run_id / "model",
        kind="generator" if run_id == "gen" else "classifier",
        run_id=run_id,
        classes=small.TWO,
        shape=small.SHAPE,
        weights={"none": torch.zeros(1)},
        training=training,
        settings={},
        about={"salt": "salt", "fold": "none", **about},
        generator_training=pd.DataFrame([*seen]),
    )


def leaked(of: Case) -> str:
    return reason(gates.leaks, of, unknown="refuse")


def test_a_test_patient_in_the_training_is_a_leak(data: Dataset, tmp_path: Path) -> None:
    saved(tmp_path, "clf", ["benign-1", "malignant-1"])
    found = gates.leaks(case(data=data, folder=tmp_path), unknown="refuse")
    assert found == "no test patient of small was in a training behind it: compared by patient " \
        "and by pixels"  # fmt: skip
    saved(tmp_path, "clf", ["benign-1", "malignant-0"])
    shutil.rmtree(tmp_path / "scratch")
    assert "patient malignant-0 of dataset small was in the training of model clf" in leaked(
        case(data=data, folder=tmp_path)
    )


def test_a_test_patient_in_a_generators_training_is_a_leak(data: Dataset, tmp_path: Path) -> None:
    seen = small.seen_by("gen", ["benign-1", "malignant-0"])
    saved(tmp_path, "clf", ["benign-1"], seen, generators=["gen"])
    assert "was in the training of a generator behind model clf" in leaked(
        case(data=data, folder=tmp_path)
    )


def test_a_generator_in_the_lineage_is_looked_into_itself(data: Dataset, tmp_path: Path) -> None:
    """The classifier's own record says nothing of what its generator saw."""
    saved(tmp_path, "clf", ["benign-1"])
    saved(tmp_path, "gen", ["benign-0"])
    assert "patient benign-0 of dataset small was in the training of model gen" in leaked(
        case(data=data, folder=tmp_path)
    )


def test_a_generator_whose_training_is_not_recorded_is_refused(
    data: Dataset, tmp_path: Path
) -> None:
    saved(tmp_path, "clf", ["benign-1"], generators=["external:atlas"])
    of = case(data=data, folder=tmp_path)
    assert leaked(of).startswith("what generators external:atlas were trained on is not recorded")
    assert "what 1 of its generators saw is unknown" in gates.leaks(of, unknown="allow")
