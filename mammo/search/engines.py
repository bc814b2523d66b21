"""Who proposes the next trial, and who stops an unpromising one: Optuna's samplers and pruners."""

from typing import TYPE_CHECKING

from mammo.registry import Registry
from mammo.search.objective import Objective
from mammo.search.space import Space
from mammo.seeds import derive

if TYPE_CHECKING:
    import optuna

SEARCHES: Registry = Registry("search")
PRUNERS: Registry = Registry("pruner")


def check_engines(search: str, pruner: str, space: Space, objective: Objective) -> None:
    """Refuse a sampler or pruner that cannot do this space or these objectives."""
    SEARCHES[search]
    PRUNERS[pruner]


def make_sampler(
    search: str, space: Space, *, seed: int, worker: int = 0, workers: int = 1, told: int = 0
) -> "optuna.samplers.BaseSampler":
    """The sampler of one worker; each worker, and each that joins after `told` trials, draws anew."""
    own = derive(seed, "search", worker, told) % 2**32
    sampler: optuna.samplers.BaseSampler = SEARCHES[search](own, space, workers)
    return sampler


def make_pruner(pruner: str, objective: Objective) -> "optuna.pruners.BasePruner":
    made: optuna.pruners.BasePruner = PRUNERS[pruner](objective)
    return made


@SEARCHES.register("tpe")
def tpe(seed: int, space: Space, workers: int) -> "optuna.samplers.BaseSampler":
    """Tree-structured Parzen estimator (Bergstra et al. 2011).

    With several workers a running trial counts as a bad one, so that nobody proposes its
    neighbour meanwhile (constant liar).
    """
    import optuna

    return optuna.samplers.TPESampler(seed=seed, constant_liar=workers > 1)


@SEARCHES.register("random")
def random(seed: int, space: Space, workers: int) -> "optuna.samplers.BaseSampler":
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


@SEARCHES.register("qmc")
def qmc(seed: int, space: Space, workers: int) -> "optuna.samplers.BaseSampler":
    """Scrambled Sobol points."""
    import optuna

    return optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False)


@PRUNERS.register("none")
def never(objective: Objective) -> "optuna.pruners.BasePruner":
    import optuna

    return optuna.pruners.NopPruner()


@PRUNERS.register("median")
def median(objective: Objective) -> "optuna.pruners.BasePruner":
    """Stop a trial below the median of the earlier ones, from the fifth trial and second epoch."""
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)


@PRUNERS.register("hyperband")
def hyperband(objective: Objective) -> "optuna.pruners.BasePruner":
    import optuna

    return optuna.pruners.HyperbandPruner(min_resource=1)
