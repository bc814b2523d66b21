"""A case before its gates, the report of them, and the moving of the aliases."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from mammo.errors import DataError, MammoError
from mammo.promotion import gates, replay, rivals
from mammo.promotion.case import Case
from mammo.promotion.policy import Policy
from mammo.registrar import Version

PASSED, FAILED, UNSEEN, OFF = "passed", "failed", "not looked at", "off"
CHALLENGER = "challenger"
AGAIN = {"reload": replay.reloaded, "redraw": replay.redrawn}
GATES: Mapping[str, Callable[..., str]] = {
    "manifest": gates.manifest,
    "lineage": gates.lineage,
    "withdrawn": gates.withdrawn,
    "leaks": gates.leaks,
    "commit": gates.commit,
    "evaluation": gates.evaluation,
    "likeness": gates.likeness,
    "floors": gates.bounds,
    "calibration": gates.bounds,
    "privacy": gates.privacy,
    "subgroups": gates.subgroups,
    "champion": rivals.champion,
    "nearer": rivals.nearer,
    "reload": replay.reload,
    "redraw": replay.redraw,
}


@dataclass(frozen=True)
class Verdict:
    """What a gate said."""

    gate: str
    state: str
    words: str


def examine(case: Case, policy: Policy) -> list[Verdict]:
    """Every gate of the policy in its order; what one reason closes is told once."""
    found: list[Verdict] = []
    reasons: dict[str, str] = {}
    for gate, asked in policy.gates.items():
        if gate in AGAIN and any(each.gate == "manifest" for each in found if each.state == FAILED):
            # loading runs what the folder names
            found.append(Verdict(gate, UNSEEN, "see manifest"))
            continue
        try:
            found.append(Verdict(gate, PASSED, GATES[gate](case, **asked)))
        except MammoError as error:
            reason = " ".join(str(error).split())
            state = UNSEEN if reason in reasons else FAILED
            words = f"see {reasons[reason]}" if reason in reasons else reason
            reasons.setdefault(reason, gate)
            found.append(Verdict(gate, state, words))
    found += [Verdict(gate, OFF, f"switched off by policy {policy.name}") for gate in policy.off]
    return found


def refusal(case: Case, verdicts: list[Verdict]) -> str:
    """One line with the reason of each gate that failed; empty where none did."""
    failed = [f"{each.gate}: {each.words}" for each in verdicts if each.state == FAILED]
    return f"{case.uri} is not promoted: {'; '.join(failed)}" if failed else ""


def markdown(case: Case, policy: Policy, verdicts: list[Verdict]) -> str:
    """The report, as it stands in the version's description."""
    failed = any(each.state == FAILED for each in verdicts)
    state = "Refused" if failed else "Passed"
    head = f"**{state}** by policy {policy.name}: {case.kind} {case.uri}"
    rows = [f"| {each.gate} | {each.state} | {_cell(each.words)} |" for each in verdicts]
    return "\n".join([head, "", "| gate | | what it found |", "|---|---|---|", *rows, ""])


def as_json(case: Case, policy: Policy, verdicts: list[Verdict]) -> str:
    said = {
        "model": case.uri,
        "kind": case.kind,
        "name": case.name,
        "alias": case.alias,
        "policy": policy.name,
        "asked": {gate: dict(asked) for gate, asked in policy.gates.items()},
        "gates": [asdict(each) for each in verdicts],
    }
    return json.dumps(said, indent=2) + "\n"


def install(case: Case, policy: Policy, *, tags: Mapping[str, str], note: str) -> Version:
    """Register the model and move the aliases: challenger, the old holder's, then the one asked.

    The registered version is loaded and compared once more before any other alias than
    challenger moves; what stops this on the way leaves the holder as it is.
    """
    registrar, alias = case.registrar, case.alias
    version = registrar.add(case.name, case.run_id, case.path, tags=tags, note=note)
    try:
        registrar.point(case.name, CHALLENGER, version.number)
        for gate, compare in AGAIN.items():
            if gate in policy.gates:
                compare(case, version.uri, **policy.gates[gate])
    except BaseException:  # a signal too
        registrar.remove(version)
        raise
    holder = registrar.holder(case.name, alias)
    if (holder and holder.number) != (case.champion and case.champion.number):
        registrar.remove(version)
        raise DataError(
            f"{alias} of {case.name} moved while the gates looked, to version "
            f"{holder.number if holder else 'none'}; promote again to be compared with that"
        )
    if case.champion is not None:
        registrar.point(case.name, previous_of(alias), case.champion.number)
    registrar.point(case.name, alias, version.number)
    if alias != CHALLENGER:
        registrar.unpoint(case.name, CHALLENGER)
    return version


def previous_of(alias: str) -> str:
    """The alias of the version that held `alias` before."""
    return "previous" if alias == "champion" else f"previous-{alias}"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
