"""Entry point `train_generator`: the command line of mammo.steps.train_generator."""

import sys

from mammo.cli import run_entry

if __name__ == "__main__":
    sys.exit(run_entry("train_generator"))
