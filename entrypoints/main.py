"""Entry point `main`: the command line of mammo.steps.main."""

import sys

from mammo.cli import run_entry

if __name__ == "__main__":
    sys.exit(run_entry("main"))
