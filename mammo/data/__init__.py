"""Datasets: from a release on disk to a manifest and memory-mapped pixels that can be trusted."""
