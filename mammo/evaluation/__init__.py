"""What predictions and synthetic images are worth: numbers, intervals, figures and the report."""

AGGREGATES = (
    "max",
    "mean",
    "none",
)  # from a patient's images to the patient; see ranking.aggregate


OPERATING = (
    "balanced_accuracy",
    "f1",
    "specificity",
)  # what the threshold is chosen for; see operating


def better(metric: str) -> str:
    """min or max, whichever value of a metric is the better one, as of val/loss and val/auc."""
    least = metric.endswith(("/loss", "/kid")) and "/auc/" not in metric  # of a class of that name
    return "min" if least else "max"
