"""Figures of a study, those that its trials make sense of."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


def figures(study: "optuna.Study") -> dict[str, Any]:
    """Optimisation history, importance of the settings and parallel coordinates, by name."""
    import warnings

    import matplotlib.pyplot as plt
    import optuna
    from optuna.visualization import matplotlib as draw

    plots: dict[str, Callable[[optuna.Study], Any]] = {
        "optimisation_history": draw.plot_optimization_history
    }
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if len({trial.value for trial in complete}) > 1:  # importance needs values that differ
        plots["importance"] = draw.plot_param_importances
        plots["parallel_coordinate"] = draw.plot_parallel_coordinate
    drawn = {}
    with warnings.catch_warnings(), plt.rc_context({"figure.figsize": (9, 5)}):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # a setting that every trial shares has an axis without length
        warnings.filterwarnings("ignore", "Attempting to set identical low and high")
        for name, plot in plots.items():
            axes = plot(study)
            figure = getattr(axes, "figure", None) or axes[0].figure
            drawn[name] = figure
            plt.close(figure)
    return drawn
