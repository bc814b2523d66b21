"""The figures of a study, those that its trials make sense of, each a matplotlib Figure."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from mammo.search.objective import Goal
from mammo.search.outcome import Candidate, candidates
from mammo.search.panels import (
    BLUE,
    FEW,
    GREY,
    ORANGE,
    RED,
    bars,
    contour,
    framed,
    label,
    parallel,
    pareto,
    slices,
)
from mammo.search.plan import Plan
from mammo.search.scales import Scale, scale_of
from mammo.search.study import OWN

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

BEST = 5  # trials that the importance of a setting is read off, of twice as many at least


def figures(study: "optuna.Study", plan: Plan) -> dict[str, "Figure"]:
    """History, slices, importance, parallel coordinates, contour and Pareto front, by name."""
    tried, goals = candidates(study), plan.objective.goals
    drawn = {
        "optimisation_history" + _of(goal, goals): history(study, plan, number)
        for number, goal in enumerate(goals)
    }
    if len(goals) > 1 and len(tried) > 1:
        drawn["pareto_front"] = pareto(tried, plan)
    varied = [each for each in _scales(tried, plan) if each.varies]
    if len(tried) < FEW or not varied:
        return drawn
    for number, goal in enumerate(goals):
        end = _of(goal, goals)
        if len({each.values[number] for each in tried}) < 2:
            continue
        drawn["slice" + end] = slices(tried, varied, goal, number)
        drawn["parallel_coordinate" + end] = parallel(tried, varied, goal, number)
        weights = importance(study, plan, number)
        if len(weights) > 1:
            drawn["importance" + end] = bars(weights, goal)
            by_weight = sorted(varied, key=lambda each: -weights.get(each.name, 0.0))
            pair = [each for each in by_weight if each.is_number][:2]
            if len(pair) == 2 and (picture := contour(tried, pair, goal, number)) is not None:
                drawn["contour" + end] = picture
    return drawn


def importance(study: "optuna.Study", plan: Plan, number: int = 0) -> dict[str, float]:
    """Share of each setting in how far the best trials differ from all, largest first.

    PED-ANOVA (Watanabe et al. 2023) of the best tenth, of five trials at least, which its authors
    advise. Empty for so few trials that it would say nothing.
    """
    import warnings

    import optuna
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(trials) < 2 * BEST or len({each.values[number] for each in trials}) < 2:
        return {}
    sign = -1 if plan.objective.goals[number].maximise else 1  # it takes the lowest for the best
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(
            target_quantile=max(0.1, BEST / len(trials))
        )
        found: dict[str, float] = optuna.importance.get_param_importances(
            study, evaluator=evaluator, target=lambda each: sign * each.values[number]
        )
    return found


def history(study: "optuna.Study", plan: Plan, number: int = 0) -> "Figure":
    """Each trial's value in turn, the best so far, and where trials were pruned or failed."""
    from optuna.trial import TrialState

    goal = plan.objective.goals[number]
    figure, axes = framed(6.4, 3.8)
    trials = study.get_trials(deepcopy=False)
    done = [each for each in trials if each.state == TrialState.COMPLETE and OWN in each.user_attrs]
    at, values = [each.number for each in done], [each.user_attrs[OWN][number] for each in done]
    so_far = list(accumulate(values, max if goal.maximise else min))
    axes.step(at, so_far, where="post", color=BLUE, lw=1.5, label="best so far")
    first = [each for each in done if "fixed_params" in each.system_attrs]
    axes.plot(at, values, "o", color=BLUE, ms=5, alpha=0.7, label="complete")
    if first and len(first) < len(done):
        places = [each.user_attrs[OWN][number] for each in first]
        axes.plot(
            [each.number for each in first], places, "o", color=ORANGE, ms=6, label="baseline"
        )
    pruned = [each for each in trials if each.state == TrialState.PRUNED]
    seen = [
        (each.number, each.intermediate_values[max(each.intermediate_values)])
        for each in pruned
        if each.intermediate_values
    ]
    if seen and number == 0:
        axes.plot(*zip(*seen, strict=True), "x", color=GREY, ms=5, label="pruned, its last value")
    failed = [each.number for each in trials if each.state == TrialState.FAIL]
    if failed:
        axes.plot(
            failed,
            [0.02] * len(failed),
            "|",
            color=RED,
            ms=10,
            mew=2,
            label="failed",
            transform=axes.get_xaxis_transform(),
            clip_on=False,
        )
    axes.set(xlabel="trial", ylabel=label(goal))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _scales(tried: Sequence[Candidate], plan: Plan) -> list[Scale]:
    return [
        scale_of(each, [one.chosen[each.name] for one in tried if each.name in one.chosen])
        for each in plan.space
    ]


def _of(goal: Goal, goals: Sequence[Goal]) -> str:
    """End of a figure's name; none where there is one goal."""
    return "" if len(goals) == 1 else f"_{goal.name.replace('/', '_')}"
