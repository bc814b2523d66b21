"""The figures of a study, those that its trials make sense of, each a matplotlib Figure."""

import math
from collections.abc import Sequence
from itertools import accumulate, combinations
from typing import TYPE_CHECKING, Any

from mammo.search.objective import Goal
from mammo.search.outcome import Candidate, candidates, front
from mammo.search.plan import Plan
from mammo.search.scales import ABSENT, Scale, scale_of
from mammo.search.study import OWN

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, told apart with colour-deficient sight
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#6b7280"
COLORS = "viridis"
FEW = 4  # configurations below which a relation between setting and value is none
BEST = 5  # trials that the importance of a setting is read off, of twice as many at least
MOST = 8  # settings in a figure


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
    figure, axes = _framed(6.4, 3.8)
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
    axes.set(xlabel="trial", ylabel=_label(goal))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def slices(
    tried: Sequence[Candidate], varied: Sequence[Scale], goal: Goal, number: int = 0
) -> "Figure":
    """A goal over each setting alone, one panel each."""
    shown = varied[:MOST]
    rows = math.ceil(len(shown) / 4)
    columns = min(4, len(shown))
    figure, panels = _framed(max(4.0, 2.4 * columns), 2.6 * rows, rows, columns)
    flat = list(panels.flat) if hasattr(panels, "flat") else [panels]
    order = [each.trials[0] for each in tried]
    for place, (axes, scale) in enumerate(zip(flat, shown, strict=False)):
        have = [each for each in tried if scale.name in each.chosen]
        points = axes.scatter(
            [scale.place(each.chosen[scale.name]) for each in have],
            [each.values[number] for each in have],
            c=[each.trials[0] for each in have],
            vmin=min(order),
            vmax=max(order),
            cmap=COLORS,
            s=22,
            edgecolor="white",
            lw=0.4,
        )
        _name_ticks(axes, scale)
        axes.set(xlabel=scale.name, ylabel=_label(goal) if place % columns == 0 else "")
    for axes in flat[1:]:
        axes.sharey(flat[0])
    for axes in flat[len(shown) :]:
        axes.set_visible(False)
    figure.colorbar(points, ax=flat, label="trial", shrink=0.8)
    return figure


def parallel(
    tried: Sequence[Candidate], varied: Sequence[Scale], goal: Goal, number: int = 0
) -> "Figure":
    """Each configuration as a line over its settings to its value; the best are drawn on top."""
    from matplotlib import colormaps

    shown = varied[:MOST]
    figure, axes = _framed(1.4 * (len(shown) + 1) + 0.8, 4.0)
    values = [each.values[number] for each in tried]
    low, high = min(values), max(values)
    better = sorted(tried, key=lambda each: each.values[number], reverse=not goal.maximise)
    for each in better:
        share = (each.values[number] - low) / (high - low)
        places = [scale.share(each.chosen.get(scale.name)) for scale in shown]
        color = colormaps[COLORS](share if goal.maximise else 1 - share)
        axes.plot(range(len(shown) + 1), [*places, share], color=color, lw=1.3, alpha=0.8)
    if any(scale.name not in each.chosen for each in tried for scale in shown):
        axes.annotate("not set", (-0.15, ABSENT), fontsize=7, color=GREY, va="center", ha="right")
    for at, scale in enumerate(shown):
        axes.axvline(at, color=GREY, lw=0.8)
        for share, text in scale.marks():
            axes.annotate(
                text,
                (at, share),
                (3, 0),
                textcoords="offset points",
                fontsize=7,
                va="center",
                bbox={"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.8},
            )
    axes.axvline(len(shown), color=GREY, lw=0.8)
    for share, value in ((0, low), (0.5, (low + high) / 2), (1, high)):
        axes.annotate(
            f"{value:.3g}",
            (len(shown), share),
            (3, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
        )
    axes.set_xticks(
        range(len(shown) + 1),
        [*(each.name for each in shown), goal.name],
        rotation=20,
        ha="right",
        fontsize=8,
    )
    axes.set(ylim=(-0.16, 1.06), xlim=(-0.2, len(shown) + 0.5), yticks=[])
    axes.spines["left"].set_visible(False)
    return figure


def bars(weights: dict[str, float], goal: Goal) -> "Figure":
    """Importance of each setting."""
    shown = sorted(weights.items(), key=lambda each: each[1])[-MOST:]
    figure, axes = _framed(5.2, 0.9 + 0.34 * len(shown))
    axes.barh([name for name, _ in shown], [value for _, value in shown], color=BLUE)
    for place, (_, value) in enumerate(shown):
        axes.annotate(
            f"{value:.2f}",
            (value, place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set(xlabel=f"importance for {goal.name} (PED-ANOVA)", xlim=(0, shown[-1][1] * 1.15))
    return figure


def contour(
    tried: Sequence[Candidate], pair: Sequence[Scale], goal: Goal, number: int = 0
) -> "Figure | None":
    """A goal over the two most important numbers, between the points that were tried.

    None where these lie on a line, and there is no area between them.
    """
    from matplotlib.tri import Triangulation

    have = [each for each in tried if all(scale.name in each.chosen for scale in pair)]
    across, up = ([scale.place(each.chosen[scale.name]) for each in have] for scale in pair)
    if len(set(zip(across, up, strict=True))) < FEW:
        return None
    try:
        Triangulation(across, up)
    except (RuntimeError, ValueError):  # all points on a line
        return None
    figure, axes = _framed(5.4, 4.2)
    values = [each.values[number] for each in have]
    if min(values) == max(values):
        return None
    area = axes.tricontourf(across, up, values, levels=12, cmap=COLORS, alpha=0.8)
    axes.scatter(
        across,
        up,
        c=values,
        cmap=COLORS,
        vmin=area.get_clim()[0],
        vmax=area.get_clim()[1],
        s=28,
        edgecolor="white",
        lw=0.8,
    )
    for scale, axis in zip(pair, ("x", "y"), strict=True):
        _name_ticks(axes, scale, axis)
    axes.set(xlabel=pair[0].name, ylabel=pair[1].name)
    figure.colorbar(area, ax=axes, label=_label(goal))
    return figure


def pareto(tried: Sequence[Candidate], plan: Plan) -> "Figure":
    """Every two goals against each other, the configurations that no other beats on a line."""
    goals = plan.objective.goals
    best = front(tried, plan.objective)
    pairs = list(combinations(range(len(goals)), 2))
    figure, panels = _framed(4.6 * len(pairs), 3.9, 1, len(pairs))
    flat = list(panels.flat) if hasattr(panels, "flat") else [panels]
    for axes, (metric, cost) in zip(flat, pairs, strict=True):
        others = [each for each in tried if each not in best]
        axes.plot(
            [each.values[cost] for each in others],
            [each.values[metric] for each in others],
            "o",
            color=GREY,
            ms=4,
            alpha=0.6,
            label="beaten by another",
        )
        line = sorted(best, key=lambda each: each.values[cost])
        axes.plot(
            [each.values[cost] for each in line],
            [each.values[metric] for each in line],
            "o-" if len(goals) == 2 else "o",
            color=BLUE,
            ms=6,
            lw=1,
            label="Pareto front",
        )
        for each in line:
            axes.annotate(
                f"{each.trials[0]}",
                (each.values[cost], each.values[metric]),
                (4, 4),
                textcoords="offset points",
                fontsize=7,
            )
        axes.set(xlabel=_label(goals[cost]), ylabel=_label(goals[metric]))
    flat[0].legend(frameon=False, fontsize=8)
    return figure


def _scales(tried: Sequence[Candidate], plan: Plan) -> list[Scale]:
    return [
        scale_of(each, [one.chosen[each.name] for one in tried if each.name in one.chosen])
        for each in plan.space
    ]


def _framed(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple["Figure", Any]:
    """A figure of `width` x `height` inches with its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    panels = figure.subplots(rows, columns)
    for axes in panels.flat if hasattr(panels, "flat") else [panels]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, panels


def _name_ticks(axes: "Axes", scale: Scale, axis: str = "x") -> None:
    """Write values where a setting's axis has places or logarithms."""
    which = axes.xaxis if axis == "x" else axes.yaxis
    if not scale.is_range:
        which.set_ticks(range(len(scale.dimension.choices)), map(str, scale.dimension.choices))
        (axes.set_xlim if axis == "x" else axes.set_ylim)(-0.5, len(scale.dimension.choices) - 0.5)
        if axis == "x" and max(len(str(each)) for each in scale.dimension.choices) > 4:
            axes.tick_params(axis="x", labelrotation=25)
    elif scale.dimension.log:
        which.set_major_formatter(lambda place, _: f"{10**place:.1g}")


def _label(goal: Goal) -> str:
    return f"{goal.name} ({'higher' if goal.maximise else 'lower'} is better)"


def _of(goal: Goal, goals: Sequence[Goal]) -> str:
    """End of a figure's name; none where there is one goal."""
    return "" if len(goals) == 1 else f"_{goal.name.replace('/', '_')}"
