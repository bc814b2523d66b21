"""Sobol points for a known space: a trial's number says which point it takes."""

from typing import Any

import optuna

from mammo.search.space import Space


class Sobol(optuna.samplers.QMCSampler):
    """Optuna's sampler, which learns the space from the first trial and counts in the storage.

    Workers that ask at the same time would get the same count, and trials before the first has
    ended none at all. With the space known and the number as the count both cannot happen. Of a
    setting with a condition each point has a value, which is dropped where the condition fails.
    """

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(scramble=True, seed=seed, warn_independent_sampling=False)
        self._space = {each.name: each.distribution() for each in sorted(space, key=_name)}
        self._number = 0

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {name: each for name, each in self._space.items() if not each.single()}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        self._number = trial.number
        found: dict[str, Any] = super().sample_relative(study, trial, search_space)
        return found

    def _find_sample_id(self, study: Any, search_space: Any) -> int:
        return self._number


def _name(dimension: Any) -> str:
    return str(dimension.name)
