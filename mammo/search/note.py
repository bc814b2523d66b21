"""The note of a study: what was searched and what came out, in markdown for MLflow's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from mammo.search.finalists import Gain, Rerun, gain_of, winner_of
from mammo.search.objective import Objective
from mammo.search.outcome import Candidate
from mammo.search.plan import Plan

MOST = 10  # configurations in the table


def note(
    plan: Plan,
    best: Sequence[Candidate],
    counted: Mapping[str, float],
    *,
    reruns: Sequence[Rerun] = (),
    weights: Mapping[str, float] | None = None,
    errors: Mapping[str, int] | None = None,
) -> str:
    """What a reader should know first; `best` are the best configurations, best first."""
    several = len(plan.objective.goals) > 1
    said = [
        f"**Search** by {plan.search}, pruner {plan.pruner}: {_trials(counted)}.",
        f"Goal: {_goals(plan.objective)}; the test images were not opened.",
        "Searched:\n\n"
        + "\n".join(f"- `{name}`: {_span(each)}" for name, each in plan.space.described().items()),
        f"{'Pareto front' if several else 'Best configurations'} "
        "(the mean, where one was proposed again with further seeds):",
        _table(plan, best[:MOST]),
    ]
    said += [_again(plan.objective.metric, reruns)] if reruns else []
    if weights:
        told = ", ".join(f"{name} {value:.2f}" for name, value in list(weights.items())[:5])
        said.append(f"What the best trials have in common (importance, PED-ANOVA): {told}.")
    for reason, count in list((errors or {}).items())[:2]:
        said.append(f"{count} failed: {reason[:200]}")
    told = f" (trial {reruns[0].candidate.trials[0]}, the best on fresh seeds)" if reruns else ""
    said.append(f"Best settings{told}: `mammo train_classifier --config study/best.yaml`.")
    return "\n\n".join(said)


def _trials(counted: Mapping[str, float]) -> str:
    return ", ".join(
        f"{counted[f'trials/{state}']:.0f} trials {state}"
        for state in ("complete", "pruned", "failed")
        if counted[f"trials/{state}"] or state == "complete"
    )


def _goals(objective: Objective) -> str:
    goals = ", ".join(
        f"{each.name} {'up' if each.maximise else 'down'}" for each in objective.goals
    )
    folds = (
        "the validation patients"
        if objective.folds == ("none",)
        else (
            f"the inner validation patients of fold{'s' if len(objective.folds) > 1 else ''} "
            + ", ".join(objective.folds)
        )
    )
    seeds = ", ".join(map(str, objective.seeds))
    return f"{goals} on {folds}, seed{'s' if len(objective.seeds) > 1 else ''} {seeds}"


def _span(said: Mapping[str, Any]) -> str:
    if "choices" in said:
        text = ", ".join(map(str, said["choices"]))
    else:
        text = f"{said['low']:g} to {said['high']:g}"
        text += ", logarithmic" if said.get("log") else ""
        text += f", in steps of {said['step']:g}" if "step" in said else ""
    conditions = [
        f"{name} is {' or '.join(map(str, values))}"
        for name, values in said.get("when", {}).items()
    ]
    return text + (f" (where {' and '.join(conditions)})" if conditions else "")


def _table(plan: Plan, best: Sequence[Candidate]) -> str:
    names = [each.name for each in plan.space]
    goals = [each.name for each in plan.objective.goals]
    rows = [["trial", *goals, *names], ["---"] * (1 + len(goals) + len(names))]
    for each in best:
        number = ", ".join(map(str, each.trials))
        values = [f"{value:.4g}" for value in each.values]
        rows.append([number, *values, *(_told(each.chosen.get(name, "")) for name in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _told(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _again(metric: str, reruns: Sequence[Rerun]) -> str:
    """The finalists on fresh seeds, in words: what the search's winner really gives."""
    winner, gain = winner_of(reruns), gain_of(reruns)
    seeds = len(reruns[0].values)
    lines = [
        f"**Trained again on {seeds} fresh seed{'s' if seeds > 1 else ''}**, "
        + ("the search's winner came to no end." if winner is None else _flattered(metric, winner))
    ]
    lines += [_gained(metric, gain)] if gain is not None else []
    if len(reruns) > 1 or winner is None:
        rows = ["| trial | searched | re-run mean | sd |", "|---|---|---|---|"]
        for each in reruns:
            sd = "" if each.sd is None else f"{each.sd:.4f}"
            trial = f"{each.candidate.trials[0]}{' (baseline)' if each.baseline else ''}"
            rows.append(f"| {trial} | {each.candidate.value:.4f} | {each.mean:.4f} | {sd} |")
        lines.append("\n".join(rows))
    return "\n\n".join(lines)


def _flattered(metric: str, winner: Rerun) -> str:
    sd = "" if winner.sd is None else f" (sd {winner.sd:.4f})"
    return (
        f"the winner (trial {winner.candidate.trials[0]}) gives {metric} {winner.mean:.4f}{sd}; "
        f"the search had said {winner.candidate.value:.4f}.\n\n"
        f"Winner's curse: {winner.curse:+.4f} (positive: the search flattered it). The luck of "
        "choosing on these validation patients is not in it."
    )


def _gained(metric: str, gain: Gain) -> str:
    sd = "" if gain.sd is None else f" (sd {gain.sd:.4f} over the seeds)"
    base = gain.baseline.candidate
    chosen = ", ".join(f"{name} {_told(value)}" for name, value in base.chosen.items())
    return (
        f"The baseline (trial {base.trials[0]}: {chosen}) gives {metric} {gain.baseline.mean:.4f} "
        f"on the same seeds: the winner is {'better' if gain.mean > 0 else 'worse'} by "
        f"{abs(gain.mean):.4f}{sd}."
    )
