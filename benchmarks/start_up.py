"""How soon `mammo` answers a question or a mistake, beside Python itself and an import of torch."""

import argparse
import subprocess
import sys
import time
from statistics import median

MAMMO = ["-m", "mammo"]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    'python -c "import torch"': ["-c", "import torch"],
    "mammo --help": [*MAMMO, "--help"],
    "mammo train_classifier --help": [*MAMMO, "train_classifier", "--help"],
    "mammo main --help": [*MAMMO, "main", "--help"],
    "mammo train_classifier --epochs many": [*MAMMO, "train_classifier", "--epochs", "many"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):  # in turns: what slows the machine slows all commands
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            seconds[name].append(time.perf_counter() - start)
    found = {name: median(each) for name, each in seconds.items()}
    bare, torch = (found[name] for name in list(COMMANDS)[:2])
    print(f"median of {repeats}, files in the page cache")
    print(f"{'command':38}{'seconds':>9}{'/ python':>10}{'/ torch':>9}")
    for name, value in found.items():
        print(f"{name:38}{value:9.2f}{value / bare:10.1f}{value / torch:9.2f}")


if __name__ == "__main__":
    main()
