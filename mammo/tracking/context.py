"""What a run was made with: the commit of the code, what was changed since, packages, machine."""

import json
import logging
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mammo.run import Run
from mammo.tracking.machine import machine, packages

LOG = logging.getLogger("mammo")
ROOT = Path(__file__).resolve().parents[2]  # where the package lies: its repository, if it has one
UNKNOWN = "unknown"
DIFF_BYTES = 1_000_000
TIMEOUT_S = 20
# What runs, and what makes its environment. All else that lies in a repository (notes, tables,
# data, .env) is nobody's business, and is counted without its name.
SHOWN = (
    ":(glob)mammo/**/*.py",
    ":(glob)mammo/**/*.yaml",
    ":(glob)entrypoints/**/*.py",
    *("MLproject", "pyproject.toml", "requirements.lock", "conda.yaml", "python_env.yaml"),
)


@dataclass(frozen=True)
class Code:
    """The state of the code that runs, as its repository knows it."""

    commit: str = UNKNOWN
    dirty: str = UNKNOWN  # true, false or unknown
    diff: str = ""  # since the commit, of the files that run; at most DIFF_BYTES in UTF-8

    @property
    def tags(self) -> dict[str, str]:
        """The commit is also where MLflow's own column looks for it."""
        known = {} if self.commit == UNKNOWN else {"mlflow.source.git.commit": self.commit}
        return {"mammo.git_commit": self.commit, "mammo.git_dirty": self.dirty, **known}


def describe(run: Run) -> None:
    """Say what `run` is made with: tags, and files below environment/."""
    code, found = code_state(), machine()
    folder = run.folder / "environment"
    folder.mkdir(exist_ok=True)
    (folder / "packages.txt").write_text(packages())
    (folder / "machine.json").write_text(json.dumps(found, indent=2) + "\n")
    if code.diff and os.environ.get("MAMMO_LOG_DIFF", "true").lower() != "false":
        (folder / "uncommitted.diff").write_text(code.diff)
    run.artifacts(folder, "environment")
    run.tags({**code.tags, **_machine_tags(found)})


def told_tags(resolved: Mapping[str, str]) -> dict[str, str]:
    """Of the tags that MLflow finds by itself, those that name nobody, with the code's own.

    MLflow would send the user's name, the path of the program (a home folder has a name too), and
    branch and address of whatever repository the program lies in, a password in it included.
    `MAMMO_LOG_USER=true` adds the names of the user and the machine.
    """
    kept = {
        name: value
        for name, value in resolved.items()
        if name != "mlflow.user" and not name.startswith("mlflow.source.git.")
    }
    if "mlflow.source.name" in kept:
        program = Path(kept["mlflow.source.name"]).name
        kept["mlflow.source.name"] = "mammo" if program == "__main__.py" else program
    if os.environ.get("MAMMO_LOG_USER", "").lower() == "true":
        import platform

        kept |= {name: resolved[name] for name in ("mlflow.user",) if name in resolved}
        kept["mammo.host"] = platform.node()
    return kept | code_state().tags


def _machine_tags(found: Mapping[str, Any]) -> dict[str, str]:
    gpus = sorted({each["name"] for each in found["gpus"]})
    return {
        "mammo.version": found["mammo"],
        "mammo.python": found["python"],
        "mammo.gpu": ", ".join(gpus) or "none",
    }


@cache
def code_state(root: Path = ROOT) -> Code:
    """The commit below `root`, whether files differ from it, and how; once in a process.

    Only a repository whose own top is `root` counts: an installed wheel may lie inside of somebody
    else's, which did not make it.
    """
    if not (root / ".git").exists():
        return Code()
    try:
        commit = _git(root, "rev-parse", "--verify", "HEAD").strip()
        changed = _listed(root, "status", "--porcelain", "--untracked-files=no", "-z")
        fresh = _listed(root, "ls-files", "-o", "--exclude-standard", "-z", "--", *SHOWN)
        if not changed and not fresh:
            return Code(commit, "false")
        return Code(commit, "true", _cut(_difference(root, len(changed), len(fresh))))
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip().splitlines()
        LOG.warning("the commit of the code is unknown: %s", reason[0] if reason else error)
        return Code()


def _difference(root: Path, changed: int, fresh: int) -> str:
    """The difference to the commit, and how many files it does not show."""
    safe = ("--no-ext-diff", "--no-textconv", "--no-color")
    diff = _git(root, "diff", *safe, "HEAD", "--", *SHOWN)
    shown = len(_listed(root, "diff", *safe, "--name-only", "-z", "HEAD", "--", *SHOWN))
    hidden = max(0, changed - shown)
    notes = [f"# {hidden} changed files that do not run are not shown"] if hidden else []
    notes += [f"# {fresh} new files without a commit are not shown"] if fresh else []
    return "\n".join([*notes, diff])


def _cut(text: str) -> str:
    """`text`, or its beginning in whole lines with a note, in DIFF_BYTES."""
    whole = text.encode()
    if len(whole) <= DIFF_BYTES:
        return text
    note = f"# cut: the whole difference has {len(whole)} bytes\n"
    start = whole[: DIFF_BYTES - len(note)].rpartition(b"\n")[0]
    return start.decode(errors="ignore") + "\n" + note


def _listed(root: Path, *arguments: str) -> list[str]:
    return [each for each in _git(root, *arguments).split("\0") if each]


def _git(root: Path, *arguments: str) -> str:
    # started from a hook of git, the environment names the repository of that hook
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(root), "-c", "core.fsmonitor=false", *arguments],
        capture_output=True,
        check=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_S,
        env={**clean, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
    )
    return done.stdout
