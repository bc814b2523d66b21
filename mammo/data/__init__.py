"""Datasets: from a release on disk to a manifest and memory-mapped pixels that can be trusted."""

# Whose images belong together, by the columns of a manifest that tell it
UNITS = {"patient": ("group_id",), "breast": ("group_id", "laterality")}
