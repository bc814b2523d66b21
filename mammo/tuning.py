"""The search: what may vary, who proposes the next trial, what came out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.registry import Registry
from mammo.seeds import derive

if TYPE_CHECKING:
    import optuna

SEARCHES: Registry = Registry("search")
PRUNERS: Registry = Registry("pruner")
DEFAULT_SPACE: dict[str, Any] = {
    "real_percentage": {"low": 0.0, "high": 1.0},
    "loss": ["ce", "bce", "focal"],
    "sampler": ["random", "weighted", "balanced"],
}
ANCHORS = (1.0, 0.5, 0.0, 0.25)  # baselines that every search over real_percentage contains


@SEARCHES.register("tpe")
def tpe(seed: int) -> "optuna.samplers.BaseSampler":
    """Tree-structured Parzen estimator (Bergstra et al. 2011)."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed)


@SEARCHES.register("random")
def random(seed: int) -> "optuna.samplers.BaseSampler":
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


@SEARCHES.register("qmc")
def qmc(seed: int) -> "optuna.samplers.BaseSampler":
    """Scrambled Sobol points."""
    import optuna

    return optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False)


@PRUNERS.register("none")
def never() -> "optuna.pruners.BasePruner":
    import optuna

    return optuna.pruners.NopPruner()


@PRUNERS.register("median")
def median() -> "optuna.pruners.BasePruner":
    """Stop a trial below the median of the earlier ones, from the fifth trial and second epoch."""
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)


@PRUNERS.register("hyperband")
def hyperband() -> "optuna.pruners.BasePruner":
    import optuna

    return optuna.pruners.HyperbandPruner(min_resource=1)


def read_space(path: str, *, synthetic: bool) -> dict[str, Any]:
    """The search space: a YAML of name: [choices] or {low, high, log, step}, or the default one."""
    space = dict(DEFAULT_SPACE)
    if path:
        import yaml

        try:
            space = yaml.safe_load(Path(path).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(
                f"space {path} cannot be read: {str(error).splitlines()[0]}"
            ) from None
        if not isinstance(space, dict) or not space:
            raise ConfigError(f"space {path} is not a mapping of settings to choices or ranges")
    elif not synthetic:
        space.pop("real_percentage")  # nothing to mix
    for name, values in space.items():
        _check_dimension(name, values)
    return space


def suggest(trial: "optuna.Trial", space: Mapping[str, Any]) -> dict[str, Any]:
    """Ask `trial` for a value of every setting in `space`."""
    chosen: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, list):
            chosen[name] = trial.suggest_categorical(name, values)
        elif isinstance(values["low"], int) and isinstance(values["high"], int):
            step = int(values.get("step", 1))
            chosen[name] = trial.suggest_int(
                name, values["low"], values["high"], step=step, log=values.get("log", False)
            )
        else:
            chosen[name] = trial.suggest_float(
                name,
                float(values["low"]),
                float(values["high"]),
                step=values.get("step"),
                log=values.get("log", False),
            )
    return chosen


def anchors(space: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Trials that come first: each real_percentage of ANCHORS with the default settings."""
    shares = space.get("real_percentage")
    if not isinstance(shares, dict):
        return []
    inside = [share for share in ANCHORS if shares["low"] <= share <= shares["high"]]
    others = {name: defaults[name] for name in space if name != "real_percentage"}
    return [{"real_percentage": share, **others} for share in inside]


def open_study(
    name: str, storage: str, *, search: str, pruner: str, seed: int, maximise: bool
) -> "optuna.Study":
    """Create the study or join it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        store = optuna.storages.RDBStorage(storage)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy, drivers and URLs raise types of their own
        reason = str(error).splitlines()[0]
        raise ConfigError(f"storage {storage.partition('@')[2] or storage}: {reason}") from None
    study = optuna.create_study(
        study_name=name,
        storage=store,
        direction="maximize" if maximise else "minimize",
        pruner=PRUNERS[pruner](),
        load_if_exists=True,
    )
    study.sampler = SEARCHES[search](derive(seed, "search", len(study.trials)) % 2**32)
    return study


def left_behind(study: "optuna.Study", owner: str) -> list["optuna.Trial"]:
    """Trials of `owner` that a dead process left running, to be gone on with."""
    import optuna

    running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    return [
        optuna.trial.Trial(study, trial._trial_id)
        for trial in running
        if trial.user_attrs.get("owner") == owner
    ]


def counts(study: "optuna.Study") -> dict[str, float]:
    """Finished trials by state."""
    from optuna.trial import TrialState

    states = [trial.state for trial in study.trials]
    return {
        "trials/complete": float(states.count(TrialState.COMPLETE)),
        "trials/pruned": float(states.count(TrialState.PRUNED)),
        "trials/failed": float(states.count(TrialState.FAIL)),
    }


def spread(study: "optuna.Study", metric: str) -> dict[str, float]:
    """Mean and sd of the metric over the complete trials, the sd where there are two."""
    from optuna.trial import TrialState

    trials = study.get_trials(states=(TrialState.COMPLETE,))
    values = [trial.value for trial in trials if trial.value is not None]
    found = {f"trials/{metric}_mean": mean(values)} if values else {}
    return found | ({f"trials/{metric}_sd": stdev(values)} if len(values) > 1 else {})


def figures(study: "optuna.Study") -> dict[str, Any]:
    """Optimisation history, importance of the settings and parallel coordinates."""
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


def _check_dimension(name: str, values: Any) -> None:
    if isinstance(values, list) and values:
        return
    if not isinstance(values, dict) or {"low", "high"} - set(values):
        raise ConfigError(f"space: {name} is {values!r}; give a list or low and high")
    unknown = set(values) - {"low", "high", "log", "step"}
    if unknown or not values["low"] < values["high"]:
        raise ConfigError(f"space: {name} is {values!r}; low < high, and log or step if wanted")
