"""Entry point `promote`: the command line of mammo.steps.promote."""

import sys

from mammo.cli import run_entry

if __name__ == "__main__":
    sys.exit(run_entry("promote"))
