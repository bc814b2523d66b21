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
