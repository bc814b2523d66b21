"""Experiments of the tracking store, which several processes may want to make at once."""

from mlflow import MlflowClient
from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException


def every(client: MlflowClient, view: str = ViewType.ACTIVE_ONLY) -> list[Experiment]:
    """All experiments; the store hands them out in pages."""
    found: list[Experiment] = []
    token = None
    while True:
        page = client.search_experiments(view, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def opened(client: MlflowClient, name: str) -> Experiment:
    """A new experiment, or the one that another process made under that name in the meantime."""
    try:
        return client.get_experiment(client.create_experiment(name))
    except MlflowException as error:
        found = client.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return found
