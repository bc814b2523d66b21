"""What predictions and synthetic images are worth: numbers, intervals, figures and the report."""
