"""Who proposes the next trial, and who stops an unpromising one: Optuna's samplers and pruners."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mammo.errors import ConfigError
from mammo.registry import Registry
from mammo.search.objective import Objective
from mammo.search.space import Space
from mammo.seeds import derive

if TYPE_CHECKING:
    import optuna

SEARCHES: Registry = Registry("search")
PRUNERS: Registry = Registry("pruner")
GRID_MOST = 1000  # points: each is a trial that waits in the storage from the start
PAIRS = 5  # trainings of a trial below which a signed rank test cannot save one
POPULATION = 10  # trials of a generation; Optuna's 50 would be a random search of 50 trials


def check_engines(search: str, pruner: str, space: Space, objective: Objective) -> None:
    """Refuse a sampler or pruner that cannot do this space or these objectives."""
    SEARCHES[search]
    PRUNERS[pruner]
    if search == "grid":
        _check_grid(space)
    if search == "cmaes":
        _check_cmaes(space)
    several = [each.name for each in objective.goals]
    if len(several) > 1 and search == "cmaes":
        raise ConfigError(f"search cmaes takes one objective, not {', '.join(several)}; use nsga2")
    if len(several) > 1 and pruner != "none":
        raise ConfigError(
            f"pruner {pruner!r} judges one objective, not {', '.join(several)}; use pruner none"
        )
    units = len(objective.units())
    known = objective.folds != ("all",)  # where the dataset has not been opened yet
    if pruner == "wilcoxon" and known and units < PAIRS:
        raise ConfigError(
            f"pruner 'wilcoxon' compares trials training by training and needs {PAIRS} folds x "
            f"seeds, there are {units}; use median, or more folds or seeds"
        )


def make_sampler(
    search: str, space: Space, *, seed: int, worker: object = 0, told: int = 0
) -> "optuna.samplers.BaseSampler":
    """The sampler of one worker.

    Workers, and one that joins again when `told` trials are there, draw different numbers from the
    same `seed`, so that they do not propose the same point.
    """
    own = derive(seed, "search", worker, told) % 2**32
    with _experimental():
        sampler: optuna.samplers.BaseSampler = SEARCHES[search](space, seed % 2**32, own)
    return sampler


def make_pruner(pruner: str, *, reports: int = 1) -> "optuna.pruners.BasePruner":
    """The pruner of one worker, of trials that report so often at most."""
    with _experimental():
        made: optuna.pruners.BasePruner = PRUNERS[pruner](reports)
    return made


@contextmanager
def _experimental() -> Iterator[None]:
    """Optuna warns of parts that it calls experimental, for years by now."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@SEARCHES.register("tpe")
def tpe(space: Space, seed: int, own: int) -> "optuna.samplers.BaseSampler":
    """Tree-structured Parzen estimator (Bergstra et al. 2011).

    A trial that runs counts as a bad one, so that no other worker proposes its neighbor meanwhile
    (constant liar).
    """
    import optuna

    return optuna.samplers.TPESampler(seed=own, constant_liar=True)


@SEARCHES.register("gp")
def gp(space: Space, seed: int, own: int) -> "optuna.samplers.BaseSampler":
    """Gaussian process with expected improvement; what has a condition is drawn at random."""
    import optuna

    return optuna.samplers.GPSampler(seed=own, warn_independent_sampling=False)


@SEARCHES.register("random")
def random(space: Space, seed: int, own: int) -> "optuna.samplers.BaseSampler":
    import optuna

    return optuna.samplers.RandomSampler(seed=own)


@SEARCHES.register("qmc")
def qmc(space: Space, seed: int, own: int) -> "optuna.samplers.BaseSampler":
    """Scrambled Sobol points (Owen 1998): trial n takes the n-th, whichever worker it has."""
    from mammo.search.sobol import Sobol

    return Sobol(space, seed)


@SEARCHES.register("nsga2")
def nsga2(space: Space, seed: int, own: int) -> "optuna.samplers.BaseSampler":
    """Genetic search for a Pareto front (Deb et al. 2002), in generations of POPULATION trials."""
    import optuna

    return optuna.samplers.NSGAIISampler(seed=own, population_size=POPULATION)


@SEARCHES.register("cmaes")
def cmaes(space: Space, seed: int, own: int) -> "optuna.samplers.BaseSampler":
    """Covariance matrix adaptation (Hansen 2016), for numbers alone."""
    import optuna

    return optuna.samplers.CmaEsSampler(seed=own, warn_independent_sampling=False)


@SEARCHES.register("grid")
def grid(space: Space, seed: int, own: int) -> "optuna.samplers.BaseSampler":
    """Every point once. They wait in the study from the start; nothing is left to propose."""
    import optuna

    return optuna.samplers.RandomSampler(seed=own)


@PRUNERS.register("none")
def never(reports: int) -> "optuna.pruners.BasePruner":
    import optuna

    return optuna.pruners.NopPruner()


@PRUNERS.register("median")
def median(reports: int) -> "optuna.pruners.BasePruner":
    """Stop a trial below the median of the earlier ones, from the fifth trial and second epoch."""
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)


@PRUNERS.register("hyperband")
def hyperband(reports: int) -> "optuna.pruners.BasePruner":
    """Successive halving with several budgets (Li et al. 2018).

    Left to itself each worker would take the longest trial that it has seen for the largest budget,
    and have other brackets than the others.
    """
    import optuna

    return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=reports)


@PRUNERS.register("wilcoxon")
def wilcoxon(reports: int) -> "optuna.pruners.BasePruner":
    """Stop a trial that loses to the best one training by training (signed ranks, p < 0.1)."""
    import optuna

    return optuna.pruners.WilcoxonPruner(p_threshold=0.1)


def _check_grid(space: Space) -> None:
    endless = [each.name for each in space if each.grid() is None]
    if endless:
        raise ConfigError(
            f"search 'grid' needs choices or steps, and {endless[0]} is a range without; give it a "
            "step in space, or use qmc"
        )
    # of a space with conditions it is fewer
    most = math.prod(len(each.grid() or ()) for each in space)
    if most > GRID_MOST:
        raise ConfigError(
            f"search 'grid' would have up to {most} trials, more than {GRID_MOST}; narrow the "
            "space, or use qmc"
        )


def _check_cmaes(space: Space) -> None:
    for each in space:
        what = "has choices" if each.choices else "has a condition" if each.when else ""
        if what:
            raise ConfigError(
                f"search 'cmaes' takes ranges of numbers alone, and {each.name} {what}; use tpe"
            )
    if len(space) < 2:
        raise ConfigError("search 'cmaes' needs two settings that vary, there is 1; use tpe or gp")
