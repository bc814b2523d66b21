"""A question and a mistake on the command line are answered without the heavy libraries."""

import subprocess
import sys

import pytest

from mammo.driver import STEPS

HEAVY = {
    "torch",
    "mlflow",
    "pandas",
    "lightning",
    "monai",
    "diffusers",
    "timm",
    "optuna",
    "scipy",
    "sklearn",
    "matplotlib",
    "pydicom",
}
# All commands in one process: what is not imported after the last was not imported by any.
PROGRAM = """
import contextlib, io, sys
from mammo import cli
for line in sys.argv[2:]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = cli.main(line.split())
    assert code == int(sys.argv[1]), (line, code)
print(*{name.partition(".")[0] for name in sys.modules})
"""
MISTAKES = [
    "nothing",
    "train_classifier --data x --epochs many",
    "train_classifier --data nowhere",
    "train_generator --data x --generator gann",
    "preprocess --dataset phantom --image_size wide",
    "preprocess --dataset folder --source nowhere",
    "preprocess --dataset mias --task age --source .",
    "sample --generator nowhere",
    "mix --real x --real_percentage 1.5",
    "evaluate --data x",
    "evaluate --data nowhere --model x",
    "tune --data x --metric luck",
    "promote --model x --alias a/b",
    "main --preprocess.crop no",
    "main --dataset mias",
]


@pytest.mark.parametrize(
    ("code", "lines"),
    [(0, ["--help", *(f"{step} --help" for step in STEPS)]), (2, MISTAKES)],
    ids=["help", "mistakes"],
)
def test_it_imports_no_heavy_library(code: int, lines: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, str(code), *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())
