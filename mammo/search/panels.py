"""Pictures of what was tried: each configuration's values over its settings."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from mammo.search.objective import Goal
from mammo.search.outcome import Candidate, front
from mammo.search.plan import Plan
from mammo.search.scales import ABSENT, Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, told apart with color-deficient sight
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#6b7280"
COLORS = "viridis"
FEW = 4  # configurations below which a relation between setting and value is none
MOST = 8  # settings in a figure


def slices(
    tried: Sequence[Candidate], varied: Sequence[Scale], goal: Goal, number: int = 0
) -> "Figure":
    """A goal over each setting alone, one panel each."""
    shown = varied[:MOST]
    rows = math.ceil(len(shown) / 4)
    columns = min(4, len(shown))
    figure, panels = framed(max(4.0, 2.4 * columns), 2.6 * rows, rows, columns)
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
        axes.set(xlabel=scale.name, ylabel=label(goal) if place % columns == 0 else "")
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
    figure, axes = framed(1.4 * (len(shown) + 1) + 0.8, 4.0)
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
    figure, axes = framed(5.2, 0.9 + 0.34 * len(shown))
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
    figure, axes = framed(5.4, 4.2)
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
    figure.colorbar(area, ax=axes, label=label(goal))
    return figure


def pareto(tried: Sequence[Candidate], plan: Plan) -> "Figure":
    """Every two goals against each other, the configurations that no other beats on a line."""
    goals = plan.objective.goals
    best = front(tried, plan.objective)
    pairs = list(combinations(range(len(goals)), 2))
    figure, panels = framed(4.6 * len(pairs), 3.9, 1, len(pairs))
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
        axes.set(xlabel=label(goals[cost]), ylabel=label(goals[metric]))
    flat[0].legend(frameon=False, fontsize=8)
    return figure


def framed(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple["Figure", Any]:
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


def label(goal: Goal) -> str:
    return f"{goal.name} ({'higher' if goal.maximise else 'lower'} is better)"
