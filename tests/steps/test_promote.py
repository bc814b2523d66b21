"""Promotion: a registered version with its alias, or a refusal with reasons."""

from pathlib import Path
from typing import Any

import pytest

from mammo.errors import ConfigError, DataError
from mammo.run import MemoryRun, Reference
from mammo.steps import promote


def tracked(folder: Path, **metrics: float) -> MemoryRun:
    run = MemoryRun(folder, {"model": [Reference("runs:/r/model", folder, "digest", "r")]})
    run.measurements["r"] = {name.replace("__", "/"): each for name, each in metrics.items()}
    return run


def policy(folder: Path, text: str) -> str:
    (folder / "policy.yaml").write_text(text)
    return str(folder / "policy.yaml")


def test_a_model_that_passes_its_gates_is_registered(tmp_path: Path) -> None:
    run = tracked(tmp_path, test__auc=0.81, test__ece=0.05)
    gates = policy(tmp_path, "test/auc: {min: 0.8}\ntest/ece: {max: 0.1}\n")
    result = promote.run(run, model="r", name="screening", policy=gates)
    assert run.registered == [("r", "screening", "champion")]
    assert result.outputs == {"model": "models:/screening/1"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("test/auc: {min: 0.9}", "test/auc is 0.81, policy asks for min 0.9"),
        ("test/ece: {max: 0.1}", "test/ece was never measured, policy asks for max 0.1"),
    ],
)
def test_a_model_that_fails_a_gate_is_refused_with_the_reason(
    text: str, reason: str, tmp_path: Path
) -> None:
    run = tracked(tmp_path, test__auc=0.81)
    with pytest.raises(DataError, match=reason):
        promote.run(run, model="r", name="screening", policy=policy(tmp_path, text))
    assert run.registered == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test/auc: 0.9", "needs min, max or both"),
        ("test/auc: {least: 0.9}", "needs min, max or both"),
        ("test/auc: {min: high}", "is 'high', not a number"),
        ("[test/auc]", "is not a mapping"),
    ],
)
def test_a_policy_that_says_nothing_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        promote.read_policy(policy(tmp_path, text))


@pytest.mark.parametrize("setting", ["name", "alias"])
def test_names_that_the_registry_cannot_hold_are_refused(setting: str) -> None:
    settings: dict[str, Any] = {"name": "a", "alias": "b", "policy": "", setting: "a/b"}
    with pytest.raises(ConfigError, match=f"{setting} 'a/b' may not contain"):
        promote.check(settings)


def test_a_model_without_a_run_cannot_be_promoted(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path, {"model": [Reference("/models/m", tmp_path, "digest")]})
    with pytest.raises(ConfigError, match="'/models/m' has no run"):
        promote.run(run, model="/models/m", name="screening")
