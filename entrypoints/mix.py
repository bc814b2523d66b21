"""Entry point `mix`: the command line of mammo.steps.mix."""

import sys

from mammo.cli import run_entry

if __name__ == "__main__":
    sys.exit(run_entry("mix"))
