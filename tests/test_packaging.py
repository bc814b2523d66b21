"""Set-up that is written more than once says the same everywhere, and nothing unfit slips in."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "tracking_server/requirements.lock")
# Copyleft that is fit to stand beside Apache-2.0, each with its reason.
ALLOWED_COPYLEFT = {
    "psycopg2-binary": "LGPL with exceptions, a driver loaded at run time by the server alone",
}


def pins(lock: str) -> dict[str, list[Requirement]]:
    """Requirements of a lock by canonical name; Python versions may have a pin each."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / lock).read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.removesuffix("\\").strip())
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_exact_versions_with_hashes_and_no_address(lock):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", entry) for entry in entries)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_lock_satisfies_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    locked = pins("requirements.lock")
    for text in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        wanted = Requirement(text)
        for pin in locked[canonicalize_name(wanted.name)]:
            [version] = pin.specifier
            assert wanted.specifier.contains(version.version), f"{pin} does not fit {wanted}"


def test_the_server_image_runs_versions_of_the_projects_own_lock():
    ours = pins("requirements.lock")
    for name, requirements in pins("tracking_server/requirements.lock").items():
        known = {str(pin.specifier) for pin in ours[name]}
        assert {str(pin.specifier) for pin in requirements} <= known


def test_conda_yaml_is_python_and_the_lock():
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text())
    python, rest = environment["dependencies"]
    assert rest == {"pip": ["-r requirements.lock"]}
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert requires.removeprefix(">=") == python.removeprefix("python=")
    assert yaml.safe_load((ROOT / "MLproject").read_text())["conda_env"] == "conda.yaml"


def test_no_dependency_is_under_a_licence_that_would_bind_the_project():
    bound = []
    for name in pins("requirements.lock"):
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        classifiers = [
            line for line in metadata.get_all("Classifier") or [] if line.startswith("License")
        ]
        # The field License may hold the whole text of a permissive licence that names the GPL.
        short = (metadata.get("License") or "").strip().split("\n")[0][:80]
        said = " ".join([metadata.get("License-Expression") or "", short, *classifiers])
        if re.search(r"GPL|General Public", said) and name not in ALLOWED_COPYLEFT:
            bound.append(f"{name}: {said}")
    assert not bound


def test_docs_give_a_reason_for_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    text = (ROOT / "docs" / "dependencies.md").read_text()
    for line in [*project["dependencies"], *extras]:
        name = Requirement(line).name
        assert re.search(rf"^\| `{re.escape(name)}` \|", text, re.MULTILINE), name


def test_the_wheel_holds_every_preset_and_profile(tmp_path):
    """Built offline from what setuptools reads, of the package the YAML and its first file."""
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "mammo/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("presets", "profiles", "promotion"):
        shutil.copytree(ROOT / "mammo" / name, tmp_path / "mammo" / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    command = [sys.executable, "-c", build]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    found = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".yaml")}
    expected = {str(path.relative_to(ROOT)) for path in ROOT.glob("mammo/pr*/*.yaml")}
    assert found == expected != set()


def test_secrets_never_come_under_version_control():
    command = ["git", "check-ignore", "--quiet", ".env"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("target", ["demo", "test", "test-slow", "lint", "bench", "server", "env"])
def test_make_knows(target):
    command = ["make", "--dry-run", "--always-make", target]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
