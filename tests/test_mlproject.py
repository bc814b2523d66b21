"""MLproject is the signatures of the steps in MLflow's words, so that both doors take the same."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mammo import cli, driver

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "MLproject").read_text()
ENTRIES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["entry_points"]

# The settings that scripts, notebooks and sweeps outside the project rely on.
PROMISED = {
    "main": "dataset source profile",
    "preprocess": "dataset source task image_size channels intensity crop val_fraction "
    "test_fraction k_folds group_by split_file limit workers",
    "train_generator": "data generator prediction mode epochs batch_size lr ema min_snr_gamma "
    "label_dropout precision compile fold",
    "sample": "generator count counts guidance steps sampler first_seed batch_size",
    "mix": "real synthetic real_percentage mix_mode synthetic_multiplier balance on_shortage",
    "train_classifier": "data synthetic real_percentage mix_mode model_name weights loss sampler "
    "augment finetune optimizer lr epochs monitor folds seeds aggregate",
    "evaluate": "model synthetic data split baseline bootstrap extractor",
    "tune": "data synthetic n_trials space study_name storage workers metric search pruner "
    "timeout_s",
    "promote": "model name alias policy",
}


def default(declared: Any) -> str | None:
    """Default of a parameter, None when it must be given."""
    return declared.get("default") if isinstance(declared, dict) else None


def test_it_is_what_the_signatures_say_now() -> None:
    printed = subprocess.run(
        [sys.executable, "tools/make_mlproject.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed == TEXT, "run: python tools/make_mlproject.py > MLproject"


def test_it_has_every_step() -> None:
    assert set(ENTRIES) == set(driver.STEPS) == set(PROMISED)


@pytest.mark.parametrize("entry", sorted(ENTRIES))
def test_every_promised_setting_is_declared(entry: str) -> None:
    common = {"launcher", "run_name", "reuse", "offline", "config"}
    declared = set(ENTRIES[entry]["parameters"])
    assert {*PROMISED[entry].split(), *common} <= declared
    assert entry == "promote" or "seed" in declared or entry == "sample"  # it has first_seed


@pytest.mark.parametrize("entry", sorted(ENTRIES))
def test_the_command_hands_every_parameter_to_a_module_that_exists(entry: str) -> None:
    words = ENTRIES[entry]["command"].split()
    assert words[:3] == ["python", "-m", f"entrypoints.{entry}"]
    assert importlib.util.find_spec(words[2])
    names = list(ENTRIES[entry]["parameters"])
    assert words[3:] == [word for name in names for word in (f"--{name}", f"{{{name}}}")]


@pytest.mark.parametrize("entry", sorted(ENTRIES))
def test_its_defaults_are_the_signatures(entry: str) -> None:
    required = [
        "--" + name + "=" + ("phantom" if name == "dataset" else "x")
        for name, declared in ENTRIES[entry]["parameters"].items()
        if default(declared) is None
    ]
    passed = [
        f"--{name}={default(declared)}"
        for name, declared in ENTRIES[entry]["parameters"].items()
        if default(declared) is not None
    ]
    assert cli.parse(entry, [*required, *passed]) == cli.parse(entry, required)
    without = {line.partition("=")[0].removeprefix("--") for line in required}
    assert without == set(cli._kinds(entry)[1])
