"""One module an entry point of MLproject: `python -m entrypoints.NAME --setting value`."""
