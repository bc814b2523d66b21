"""Put a model into the registry under a name and an alias, if it passes the policy's gates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mammo.errors import ConfigError, DataError
from mammo.run import Result, Run

INPUTS = {"model": "model"}
REUSABLE = False  # an alias may have moved since


def check(settings: Mapping[str, Any]) -> None:
    if not settings["name"]:
        raise ConfigError("name is empty; give the registered model's name, e.g. classifier")
    for setting in ("name", "alias"):
        if set(str(settings[setting])) & set("/:@%"):
            raise ConfigError(f"{setting} {settings[setting]!r} may not contain / : @ or %")
    read_policy(str(settings["policy"]))


def run(
    tracked: Run, *, model: str, name: str = "classifier", alias: str = "champion", policy: str = ""
) -> Result:
    """Register a trained model and point an alias to it.

    Args:
        model: the trained model (a run id or runs:/<id>/model).
        name: name in the model registry.
        alias: alias that will point to the new version.
        policy: YAML file of gates, metric: {min: ..., max: ...}; empty for none.
    """
    reference = tracked.inputs["model"][0]
    if not reference.run_id:
        raise ConfigError(f"model {model!r} has no run; promote a model that a run has logged")
    gates = read_policy(policy)
    measured = tracked.measured(reference.run_id)
    verdicts = judge(gates, measured)
    tracked.table("gates", verdicts)
    failed = verdicts[~verdicts["passed"]]
    if len(failed):
        reasons = "; ".join(failed["reason"])
        raise DataError(f"model {reference.run_id} is not promoted: {reasons}")
    tags = {"mammo.digest": reference.digest, "mammo.run_id": reference.run_id}
    version = tracked.register(reference.run_id, name, alias, tags)
    tracked.tags({"mammo.registered": f"models:/{name}/{version}", "mammo.alias": alias})
    return Result({"model": f"models:/{name}/{version}"}, {"version": float(version)})


def read_policy(path: str) -> dict[str, dict[str, float]]:
    """Gates by metric; ConfigError when the file is not a mapping to min and max."""
    if not path:
        return {}
    import yaml

    try:
        gates = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"policy {path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(gates, Mapping):
        raise ConfigError(f"policy {path} is not a mapping of metrics to min and max")
    for metric, bounds in gates.items():
        if not isinstance(bounds, Mapping) or not bounds or set(bounds) - {"min", "max"}:
            raise ConfigError(f"policy {path}: {metric} needs min, max or both, not {bounds!r}")
        for bound, value in bounds.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"policy {path}: {bound} of {metric} is {value!r}, not a number")
    return {metric: dict(bounds) for metric, bounds in gates.items()}


def judge(gates: Mapping[str, Mapping[str, float]], measured: Mapping[str, float]) -> Any:
    """One row a gate: metric, bound, value, passed, reason. A metric never measured fails."""
    import pandas as pd

    rows = []
    for metric, bounds in gates.items():
        for bound, limit in bounds.items():
            value = measured.get(metric, float("nan"))
            passed = value >= limit if bound == "min" else value <= limit
            reason = f"{metric} is {value:.4g}, policy asks for {bound} {limit:.4g}"
            if metric not in measured:
                reason = f"{metric} was never measured, policy asks for {bound} {limit:.4g}"
            rows.append((metric, bound, limit, value, bool(passed), reason))
    columns = ["metric", "bound", "limit", "value", "passed", "reason"]
    return pd.DataFrame(rows, columns=columns).astype({"passed": bool})
