"""Prints MLproject from the steps' signatures: `python tools/make_mlproject.py > MLproject`."""

import inspect
import sys
from typing import Any

from mammo import driver

# The signature's types in MLflow's four words; a switch travels as the text true or false.
KINDS = {"int": "float", "float": "float"}
COMMON = {name: each for name, each in driver.COMMON.items() if name != "work_dir"}


def mlproject() -> str:
    """The whole file."""
    lines = [
        "# Written by tools/make_mlproject.py from the steps' signatures. Further settings pass",
        "# through: -P preprocess.image_size=128 becomes --preprocess.image_size 128.",
        "name: mammo",
        "conda_env: conda.yaml",
        "entry_points:",
    ]
    for step in driver.STEPS:
        lines += entry_point(step)
    return "\n".join(lines) + "\n"


def entry_point(step: str) -> list[str]:
    """One entry point: its parameters with types and defaults, and its command."""
    signature = inspect.signature(driver.step_module(step).run)
    settings = {name: each for name, each in signature.parameters.items() if name not in SKIPPED}
    lines = [f"  {step}:", "    parameters:"]
    for name, each in settings.items():
        kind = "string"
        if each.default is not inspect.Parameter.empty and not isinstance(each.default, bool):
            kind = KINDS.get(type(each.default).__name__, "string")
        lines.append(f"      {name}: {described(kind, each.default)}")
    lines += [f"      {name}: {described('string', each)}" for name, each in COMMON.items()]
    names = [*settings, *COMMON, "config"]
    lines.append(f"      config: {described('string', '')}")
    lines.append("    command: >-")
    lines.append(f"      python -m entrypoints.{step}")
    lines += [f"      --{name} {{{name}}}" for name in names]
    return lines


def described(kind: str, default: Any) -> str:
    if default is inspect.Parameter.empty:
        return kind
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f'{{type: {kind}, default: "{text}"}}'


SKIPPED = ("tracked", "step_settings")

if __name__ == "__main__":
    sys.stdout.write(mlproject())
