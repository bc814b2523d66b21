"""Entry point `train_classifier`: the command line of mammo.steps.train_classifier."""

import sys

from mammo.cli import run_entry

if __name__ == "__main__":
    sys.exit(run_entry("train_classifier"))
