"""Search spaces for the tests, and what the steps say of their settings."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from mammo.driver import defaults
from mammo.search.objective import Objective, read_objective
from mammo.search.plan import Plan
from mammo.search.reading import read_space
from mammo.search.space import TRIAL_STEPS, Space

MODULES: dict[str, ModuleType] = {
    step: import_module(f"mammo.steps.{step}") for step in TRIAL_STEPS
}
SETTINGS: dict[str, dict[str, Any]] = {step: defaults(each) for step, each in MODULES.items()}


def space(said: Mapping[str, Any], folder: Path) -> Space:
    """The space of a YAML file that says so."""
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(dict(said), sort_keys=False))
    return read_space(str(path), synthetic=True, modules=MODULES)


def plan(said: Mapping[str, Any], *, objective: Objective | None = None, **given: Any) -> Plan:
    """A plan over the space that was `said` in its canonical words."""
    return Plan(
        space=Space.of(said),
        objective=objective or read_objective("val/auc", seeds=(0,)),
        inputs={"data": "d1"},
        settings={"train_classifier": SETTINGS["train_classifier"]},
        **given,
    )
