"""Put a model into the registry under a name and an alias, if it passes the policy's gates."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError, DataError
from mammo.run import Result, Run

if TYPE_CHECKING:
    from mammo.promotion.case import Case
    from mammo.promotion.policy import Policy
    from mammo.promotion.verdict import Verdict

INPUTS = {"model": "model", "data": "dataset"}
REUSABLE = False  # an alias may have moved since


def check(settings: Mapping[str, Any]) -> None:
    from mammo.promotion.policy import read_policy

    name, alias = str(settings["name"]), str(settings["alias"])
    if not name.strip():
        raise ConfigError("name is empty; give the registered model's name, e.g. classifier")
    if set(name) & set("/:@%") or not name.isprintable() or name in (".", "..") or name[250:]:
        raise ConfigError(
            f"name {name[:300]!r} cannot be given: it may not contain / : @ or %, nor have more "
            "than 250 letters; give the registered model's name, e.g. classifier"
        )
    own = re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE)
    if own or not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", alias):
        raise ConfigError(
            f"alias {alias!r} cannot be given: MLflow takes letters, digits, _ and -, and keeps "
            "latest and v1, v2, … for itself; use champion"
        )
    if alias.startswith("previous"):
        raise ConfigError(f"alias {alias!r} cannot be given: roll-back keeps it; use champion")
    read_policy(str(settings["policy"]))


def run(
    tracked: Run,
    *,
    model: str,
    data: str = "",
    name: str = "classifier",
    alias: str = "champion",
    policy: str = "",
) -> Result:
    """Register a trained model and point an alias to it.

    Args:
        model: the trained model (a run id or runs:/<id>/model).
        data: the dataset whose test patients judge; empty where it was evaluated on one alone.
        name: name in the model registry.
        alias: alias that will point to the new version.
        policy: YAML file of gates; empty for those that mammo ships, none for no gate (tagged).
    """
    from mammo.models import open_model
    from mammo.promotion.case import Case
    from mammo.promotion.policy import policy_for
    from mammo.promotion.verdict import as_json, examine, install, markdown, refusal

    reference = tracked.inputs["model"][0]
    if not reference.run_id:
        raise ConfigError(f"model {model!r} has no run; promote a model that a run has logged")
    kind = open_model(reference.path).kind
    chosen = policy_for(policy, kind)
    given = tracked.inputs.get("data", [])
    with tempfile.TemporaryDirectory(dir=tracked.folder, prefix="promotion-") as scratch:
        case = Case(
            tracked.registrar(),
            reference,
            kind=kind,
            name=name,
            alias=alias,
            data=given[0] if given else None,
            scratch=Path(scratch),
        )
        verdicts = examine(case, chosen)
        note = markdown(case, chosen, verdicts)
        for file, text in (("gates.md", note), ("gates.json", as_json(case, chosen, verdicts))):
            (tracked.folder / file).write_text(text)
            tracked.artifacts(tracked.folder / file)
        tracked.tags({"mammo.policy": chosen.name})
        if line := refusal(case, verdicts):
            raise DataError(line)
        version = install(case, chosen, tags=_tags(tracked, case, chosen, verdicts), note=note)
    tracked.tags({"mammo.registered": version.uri, "mammo.alias": alias})
    return Result({"model": version.uri}, {"version": float(version.number)})


def _tags(
    tracked: Run, case: "Case", policy: "Policy", verdicts: list["Verdict"]
) -> dict[str, str]:
    """What the version says of itself."""
    tags = {
        "mammo.digest": case.reference.digest,
        "mammo.run_id": case.run_id,
        "mammo.kind": case.kind,
        "mammo.promotion": tracked.id,
        "mammo.policy": policy.name,
        "mammo.gates_passed": ",".join(each.gate for each in verdicts if each.state == "passed"),
        "mammo.gates_off": ",".join(policy.off),
    }
    if policy.name != "none":
        tags["mammo.test_digest"] = case.data.digest
        tags["mammo.evaluation"] = case.evaluation.run_id
    return tags
