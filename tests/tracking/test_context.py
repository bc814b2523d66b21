"""What a run says it was made with: the commit, the difference, the packages, and nobody's name."""

import getpass
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from mammo import __version__
from mammo.run import MemoryRun
from mammo.tracking import context
from mammo.tracking.context import DIFF_BYTES, Code, code_state, describe, told_tags
from mammo.tracking.machine import machine, packages

SECRET = "hunter2"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@x"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit of code, a table below data/ and a .env."""
    root = tmp_path / "project"
    for name, text in {
        "mammo/steps/one.py": "a = 1\n",
        "MLproject": "name: x\n",
        "data/patients.csv": "id\n",
        ".env": "PASSWORD=\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def test_a_clean_checkout_is_its_commit_and_no_difference(repository: Path) -> None:
    assert code_state(repository) == Code(git(repository, "rev-parse", "HEAD"), "false", "")


def test_the_difference_shows_what_runs_and_never_data_or_secrets(repository: Path) -> None:
    (repository / "mammo/steps/one.py").write_text("a = 2\n")
    (repository / "data/patients.csv").write_text(f"{SECRET}\n")
    (repository / ".env").write_text(f"PASSWORD={SECRET}\n")
    (repository / "mammo/new.py").write_text(f"{SECRET} = 3\n")
    (repository / "notes.txt").write_text(SECRET)
    found = code_state(repository)
    assert found.dirty == "true"
    assert "-a = 1\n+a = 2\n" in found.diff
    assert SECRET not in found.diff and "patients" not in found.diff
    assert "# 2 changed files that do not run are not shown" in found.diff
    assert "# 1 new files without a commit are not shown" in found.diff


def test_files_without_a_commit_outside_of_what_runs_are_not_dirty(repository: Path) -> None:
    (repository / "notes.txt").write_text("later")
    assert code_state(repository).dirty == "false"
    (repository / "mammo/new.py").write_text("b = 3\n")
    code_state.cache_clear()
    assert code_state(repository).dirty == "true"


def test_a_long_difference_is_cut_in_whole_lines_and_says_so(repository: Path) -> None:
    lines = "".join(f"x{number} = 'ä'\n" for number in range(100_000))
    (repository / "mammo/steps/one.py").write_text(lines)
    diff = code_state(repository).diff
    assert len(diff.encode()) <= DIFF_BYTES
    *_, before, last = diff.splitlines()
    assert before.endswith(" = 'ä'")
    assert last == f"# cut: the whole difference has {_whole(repository)} bytes"


def _whole(repository: Path) -> int:
    done = subprocess.run(["git", "diff", "HEAD"], cwd=repository, capture_output=True, check=True)
    return len(done.stdout) + 0


def test_a_wheel_inside_of_somebody_elses_repository_has_no_commit(repository: Path) -> None:
    installed = repository / "venv/site-packages"
    installed.mkdir(parents=True)
    found = code_state(installed)
    assert found.tags == {"mammo.git_commit": "unknown", "mammo.git_dirty": "unknown"}


def test_a_repository_that_git_refuses_is_unknown_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    assert code_state(tmp_path) == Code()
    assert caplog.messages[0].startswith("the commit of the code is unknown: fatal: not a git")


def test_a_hook_of_another_repository_does_not_mislead(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    commit = git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert code_state(repository).commit == commit


def test_a_run_carries_tags_packages_machine_and_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "code_state", lambda: Code("c" * 40, "true", "+a\n"))
    run = MemoryRun(tmp_path)
    describe(run)
    folder = run.uploaded["environment"]
    assert (folder / "uncommitted.diff").read_text() == "+a\n"
    assert f"torch=={version('torch')}\n" in (folder / "packages.txt").read_text()
    assert json.loads((folder / "machine.json").read_text())["mammo"] == __version__
    assert run.logged_tags == {
        "mammo.git_commit": "c" * 40,
        "mlflow.source.git.commit": "c" * 40,
        "mammo.git_dirty": "true",
        "mammo.version": __version__,
        "mammo.python": platform.python_version(),
        "mammo.gpu": ", ".join(sorted({each["name"] for each in machine()["gpus"]})) or "none",
    }


def test_the_difference_stays_here_where_it_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "code_state", lambda: Code("c" * 40, "true", "+a\n"))
    monkeypatch.setenv("MAMMO_LOG_DIFF", "false")
    run = MemoryRun(tmp_path)
    describe(run)
    assert sorted(path.name for path in run.uploaded["environment"].iterdir()) == [
        "machine.json",
        "packages.txt",
    ]


def test_packages_are_those_that_pip_freezes() -> None:
    lines = packages().splitlines()
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0].lower())
    for name in ("mlflow", "numpy", "Jinja2"):
        assert f"{name}=={version(name)}" in lines


def test_nothing_that_is_told_names_the_machine_or_a_person() -> None:
    told = json.dumps(machine()) + packages()
    assert platform.node() not in told.split('"')
    assert str(Path.home()) not in told


MLFLOWS_OWN = {
    "mlflow.user": getpass.getuser(),
    "mlflow.source.name": "/people/anna/.venv/bin/mammo",
    "mlflow.source.type": "LOCAL",
    "mlflow.source.git.repoURL": f"https://anna:{SECRET}@example.org/code",
    "mlflow.source.git.branch": "anna/secret-plan",
    "mlflow.source.git.commit": "0" * 40,  # of the repository that the program lies in
}


def test_tags_that_mlflow_finds_are_sent_without_names_and_passwords(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context, "code_state", lambda: Code("c" * 40, "false"))
    assert told_tags(MLFLOWS_OWN) == {
        "mlflow.source.name": "mammo",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "c" * 40,
        "mammo.git_commit": "c" * 40,
        "mammo.git_dirty": "false",
    }


def test_python_m_mammo_is_named_as_mammo_is() -> None:
    program = "/people/anna/code/mammo/__main__.py"
    assert told_tags({"mlflow.source.name": program})["mlflow.source.name"] == "mammo"


def test_user_and_machine_are_named_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAMMO_LOG_USER", "true")
    told = told_tags(MLFLOWS_OWN)
    assert (told["mlflow.user"], told["mammo.host"]) == (getpass.getuser(), platform.node())
