"""One module an entry point: `run(tracked, *, settings)` tells the story of the step."""
