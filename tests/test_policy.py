"""A policy says what a promotion asks: mammo's own, what a file changes, and what it cannot say."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from mammo.errors import ConfigError
from mammo.promotion.policy import BOUNDED, KINDS, default_of, policy_for, read_policy


def written(folder: Path, text: str) -> str:
    (folder / "policy.yaml").write_text(text)
    return str(folder / "policy.yaml")


@pytest.mark.parametrize("kind", KINDS)
def test_every_gate_of_the_default_reads_what_its_file_says(kind: str) -> None:
    from mammo.promotion.verdict import GATES

    for gate, asked in default_of(kind).items():
        if gate not in BOUNDED:
            parameters = inspect.signature(GATES[gate]).parameters.values()
            reads = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
            assert reads == set(asked), gate


def test_every_gate_is_asked_by_some_default() -> None:
    from mammo.promotion.verdict import GATES

    assert {gate for kind in KINDS for gate in default_of(kind)} == set(GATES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_is_a_policy_that_may_be_copied(kind: str, tmp_path: Path) -> None:
    text = yaml.safe_dump(default_of(kind))
    copied = policy_for(written(tmp_path, text), kind)
    default = policy_for("", kind)
    assert copied.gates == default.gates
    assert (default.name, default.off) == ("default", ())
    assert copied.name.startswith("policy.yaml ")


def test_a_file_changes_what_it_names_alone(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "test/auc: {min: 0.8}\nfloors: {test/ece: {max: 0.1}}\nchampion: {margin: 0.01}\n"
        "commit: false\n",
    )
    policy, default = policy_for(path, "classifier"), policy_for("", "classifier")
    assert policy.gates["floors"] == {
        **default.gates["floors"],
        "test/auc": {"min": 0.8},
        "test/ece": {"max": 0.1},
    }
    assert policy.gates["champion"] == {**default.gates["champion"], "margin": 0.01}
    assert policy.off == ("commit",)
    changed = {"floors", "champion", "commit"}
    for gate in set(default.gates) - changed:
        assert policy.gates[gate] == default.gates[gate]


def test_a_bound_of_the_default_can_be_dropped(tmp_path: Path) -> None:
    path = written(tmp_path, "floors: {test/auc_low: false}\n")
    assert "test/auc_low" not in policy_for(path, "classifier").gates["floors"]


def test_none_leaves_the_manifest_alone() -> None:
    policy = policy_for("none", "classifier")
    assert (policy.name, list(policy.gates)) == ("none", ["manifest"])
    assert {"leaks", "lineage", "champion", "reload"} <= set(policy.off)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test/auc: 0.9", "test/auc is 0.9; give bounds, as {min: 0.8}"),
        ("test/auc: {least: 0.9}", "test/auc is {'least': 0.9}; give bounds"),
        ("test/auc: {min: high}", "min of test/auc is 'high', not a number"),
        ("test/auc: {min: true}", "min of test/auc is True, not a number"),
        ("[test/auc]", "is not a mapping"),
        ("champions: {}", "no gate is called 'champions'; use manifest, lineage"),
        ("champion: 0.1", "champion needs settings, not 0.1; give it a mapping or false"),
        ("champion: {least: 0}", "champion has no setting 'least'; it has margin, bound, draws"),
        ("champion: {bound: normal}", "champion.bound is 'normal'; choose bootstrap or delong"),
        ("champion: {draws: 0}", "champion.draws is 0; give a whole number from 1 on"),
        ("champion: {margin: '0'}", "champion.margin is '0', not a number"),
        ("leaks: {unknown: maybe}", "leaks.unknown is 'maybe'; choose refuse or allow"),
        ("lineage: {outside: weights}", "lineage.outside is 'weights'; give a list of names"),
        ("privacy: {bounds: {privacy/copies: 0}}", "privacy/copies is 0; give bounds"),
        ("manifest: false", "manifest cannot be switched off; give it a mapping, or leave it out"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_policy(written(tmp_path, text))
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_gate_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gate champion is none of a generator; it has manifest"):
        policy_for(written(tmp_path, "champion: {margin: 0.1}"), "generator")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("name", value) for value in ("", "  ", "a/b", "a@b", "..", "a\nb", "a" * 251)],
        *[("alias", value) for value in ("", "a/b", "a b", "v12", "Latest", "a" * 201)],
    ],
)
def test_names_that_the_registry_cannot_hold_are_refused(setting: str, value: str) -> None:
    """Told by the registry they would be after all gates, with the version half made."""
    from mammo.steps import promote

    settings: dict[str, Any] = {"name": "a", "alias": "b", "policy": ""}
    promote.check(settings)
    with pytest.raises(ConfigError, match=f"^{setting} .*; (use|give) ") as refused:
        promote.check({**settings, setting: value})
    assert "\n" not in str(refused.value)


def test_an_alias_that_roll_back_needs_is_refused() -> None:
    from mammo.steps import promote

    with pytest.raises(ConfigError, match="alias 'previous' cannot be given"):
        promote.check({"name": "a", "alias": "previous", "policy": ""})
