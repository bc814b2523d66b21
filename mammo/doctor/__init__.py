"""The doctor: what is wrong with a dataset, found in its rows, its pixels and by probing models."""
