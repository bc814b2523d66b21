"""The README and the docs tell the truth: their commands parse, and the newcomer's ones run."""

import inspect
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from doors import ROOT
from PIL import Image

from mammo import cli, driver
from mammo.commands import COMMANDS, doctor
from mammo.data.sources import ADAPTERS, open_adapter

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = {
    "preprocess": ["--image_size", "32", "--val_fraction", "0.25", "--test_fraction", "0.25"],
    "train_generator": ["--epochs", "1", "--channels", "8,16", "--attention", "0"],
    "sample": ["--count", "16", "--steps", "2"],
    "train_classifier": ["--model_name", "resnet10t", "--epochs", "1", "--batch_size", "8"],
    "evaluate": ["--bootstrap", "100"],
}


def commands(page: Path) -> list[str]:
    """Lines of a page's shell blocks, continued lines joined, comments dropped."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


SHOWN = [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=lambda text: str(text)[:60])
def test_every_command_shown_is_one_that_exists(page: str, line: str) -> None:
    words = shlex.split(re.sub(r"<[^>]+>", "0" * 32, line).replace("$MAMMO_SHARED", "/shared"))
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    program, *arguments = words
    if program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(arguments) <= targets
    elif program == "mammo" and arguments[0] in driver.STEPS:
        cli.parse(arguments[0], arguments[1:])
    elif program == "mammo":
        assert arguments[0] in {*COMMANDS, "ENTRY"}
        if arguments[0] == "doctor":
            settings = {word[2:] for word in arguments if word.startswith("--")}
            named = bool(arguments[1:]) and not arguments[1].startswith("--")
            called = doctor.run if named else doctor.tracking
            assert settings <= set(inspect.signature(called).parameters)
    elif words[:3] == ["mlflow", "run", "."]:
        entry = arguments[arguments.index("-e") + 1]
        settings = [arguments[at + 1] for at, word in enumerate(arguments) if word == "-P"]
        cli.parse(entry, [f"--{setting}" for setting in settings])
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    else:
        assert program in {"export", ".", "mlflow", "pytest", "cd", "docker", "git", "cp", "for"}


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (step, line)
        for _, line in SHOWN
        for step in ("train_generator", "sample", "train_classifier")
        if line.startswith(f"mammo {step} ")
    ],
    ids=lambda text: str(text)[:60],
)
def test_settings_that_are_shown_go_together(step: str, line: str) -> None:
    """All but files, which are the reader's own: of weights, and of those that compare images."""
    line = re.sub(r"--weights \$\S+", "--weights default", line)
    settings = cli.parse(step, shlex.split(re.sub(r"<[^>]+>", "0" * 32, line))[2:])
    if settings.get("perceptual"):
        settings |= {"perceptual": "", "perceptual_weight": 0.0}
    driver.step_module(step).check(settings)


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_tasks_of_each_release_are_those_of_its_adapter(name: str) -> None:
    """The table writes density2/4 for density2 and density4."""
    page = (ROOT / "docs" / "releases.md").read_text()
    (line,) = [each for each in page.splitlines() if each.startswith(f"| `{name}`")]
    offers = getattr(open_adapter(name), "OFFERS", ())
    if not offers:
        assert "any task whose names fit" in line
        return
    offered = set[str]()
    for word in line.split("|")[3].split(","):
        match = re.fullmatch(r"(\D+?)((?:\d/)*\d)?(_birads)?", word.strip())
        assert match
        numbers = (match[2] or "").split("/")
        offered |= {f"{match[1]}{number}{match[3] or ''}" for number in numbers}
    assert offered == set(offers)


@pytest.mark.doors
def test_the_newcomers_own_folder_goes_all_the_way(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = tmp_path / "images"
    rng = np.random.default_rng(0)
    for number in range(16):
        label = "malignant" if number % 2 else "benign"
        (images / label).mkdir(parents=True, exist_ok=True)
        for view in ("cc", "mlo"):
            breast = np.zeros((48, 40), np.uint8)
            breast[8:40, :24] = rng.integers(90, 200, (32, 24))
            Image.fromarray(breast).save(images / label / f"p{number:03}_left_{view}.png")
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "README.md").read_text().partition("## On your own images")[2]
    lines = re.findall(r"^mammo .*$", section.partition("## Reading")[0], re.MULTILINE)
    names = iter(["dataset", "generator", "synthetic", "real_only", "classifier", "report"])
    made: dict[str, str] = {}
    for line in lines:
        filled = re.sub(r"<(\w+)>", lambda match: made[match[1]], line)
        _, entry, *arguments = shlex.split(filled)
        assert cli.main([entry, *arguments, *SMALL[entry]]) == 0, capsys.readouterr().err
        made[next(names)] = json.loads(capsys.readouterr().out.splitlines()[-1])["run_id"]
    assert set(made) == {
        "dataset", "generator", "synthetic", "real_only", "classifier", "report"
    }  # fmt: skip


def test_make_bench_runs_what_needs_no_argument() -> None:
    """One that asks for an argument would end the others behind it."""
    for path in sorted(ROOT.glob("benchmarks/[a-z]*.py")):
        assert "required=True" not in path.read_text(), path
