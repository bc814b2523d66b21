"""Addresses of MLflow's own pages: a run, the charts of a parent's children, their comparison."""

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

MOST = 20  # runs side by side; more make neither a readable page nor an address that all take


def run_page(experiment_id: str, run_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def charts_page(experiment_id: str, parent_id: str) -> str:
    """The experiment's charts of the children of one parent alone.

    Sorted by time, which is the pages' default, MLflow adds the parent and folds its children
    away beneath it, and draws the parent; sorted by name it draws them.
    """
    asked = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_id}'",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": "true",
        "compareRunsMode": "CHART",
    }
    return f"#/experiments/{experiment_id}/runs?{urlencode(asked, quote_via=quote)}"


def compare_page(experiment_id: str, run_ids: Sequence[str]) -> str:
    """Runs side by side: parallel coordinates, scatter, box and contour plots, and the tables."""
    runs, experiments = json.dumps(list(run_ids)), json.dumps([experiment_id])
    asked = urlencode({"runs": runs, "experiments": experiments}, quote_via=quote)
    return f"#/compare-runs?{asked}"


def at(address: str, page: str) -> str:
    """What a reader opens: the page on the server, or how to start one for a local store."""
    if address.startswith("http"):
        return f"{address.rstrip('/')}/{page}"
    return f"http://127.0.0.1:5000/{page} (of `mlflow ui --backend-store-uri {address}`)"
