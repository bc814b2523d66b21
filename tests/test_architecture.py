"""The rules of the code base: what may import what, and what may stand in a file."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted([*ROOT.glob("mammo/**/*.py"), *ROOT.glob("entrypoints/*.py")])

# What each part of mammo/ may import of the others; a part that is not here is found by the test.
FOUNDATION = {"errors", "registry", "registrar", "seeds", "settings", "run"}
LIBRARY = {"data", "training", "models", "loggers"}
DRIVER = {
    "cli",
    "commands",
    "driver",
    "launching",
    "lineage",
    "mistakes",
    "references",
    "serving",
    "tracking",
}
MAY_IMPORT = {
    "errors": set(),
    "registry": {"errors"},
    "seeds": set(),
    "settings": {"errors", "registry"},
    "registrar": {"lineage"},
    "run": {"errors", "registrar"},
    "data": FOUNDATION,
    "training": FOUNDATION,
    "loggers": {"errors", "registry", "run"},
    "models": FOUNDATION | {"data"},
    "generators": FOUNDATION | LIBRARY | {"evaluation"},
    "classifiers": FOUNDATION | LIBRARY | {"evaluation"},
    "evaluation": FOUNDATION | {"data", "models"},
    "doctor": FOUNDATION | {"data", "evaluation"},
    "promotion": FOUNDATION | {"data", "models", "evaluation", "generators", "lineage"},
    "search": FOUNDATION,
    "launch": FOUNDATION,
    "commands": FOUNDATION
    | LIBRARY
    | {"generators", "classifiers", "evaluation", "doctor", "promotion", "launch", "search"}
    | DRIVER,
    "steps": FOUNDATION
    | LIBRARY
    | {"generators", "classifiers", "evaluation", "promotion", "search", "launch"},
}
# Their work is to print: commands that answer on stdout.
MAY_PRINT = {
    "mammo/cli.py",
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("mammo/commands/*.py")),
}


def part(path: Path) -> str:
    """First name below mammo/: data of mammo/data/splits.py, errors of mammo/errors.py."""
    return path.relative_to(ROOT / "mammo").parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names that the module at `path` imports anywhere, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively, which hides what it imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_imported(path: Path) -> set[str]:
    found = {name.split(".")[1] for name in imports(path) if name.startswith("mammo.")}
    return found - {"__version__"}


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_imports_go_down_only(name):
    files = [path for path in ROOT.glob("mammo/**/*.py") if part(path) == name]
    for path in files:
        up = parts_imported(path) - MAY_IMPORT[name] - {name}
        assert not up, f"{path.relative_to(ROOT)} imports {up}, which lies above or beside it"


def test_every_part_has_its_rule():
    parts = {part(path) for path in ROOT.glob("mammo/**/*.py")}
    assert parts - set(MAY_IMPORT) - DRIVER == {"__init__", "__main__"}


def test_a_step_never_imports_another():
    for path in ROOT.glob("mammo/steps/*.py"):
        others = {name for name in imports(path) if name.startswith("mammo.steps.")}
        assert not others, f"{path.name} imports {others}; main and tune launch steps instead"


def test_mlflow_is_imported_by_the_tracking_module_alone():
    users = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name.split(".")[0] == "mlflow" for name in imports(path))
    }
    assert {user.rpartition("/")[0] for user in users} <= {"mammo/tracking"}


def test_library_code_does_not_print():
    for path in MODULES:
        if str(path.relative_to(ROOT)) not in MAY_PRINT:
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if is_print(node)]
            assert not calls, f"{path.relative_to(ROOT)}:{calls[0].lineno} prints; log or return it"


def is_print(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


SAFE = {  # a setting of each way to load, what it is by default, what is safe
    "torch.load": ("weights_only", "", "True"),
    "np.load": ("allow_pickle", "False", "False"),
}


def test_nothing_is_unpickled() -> None:
    """A file may come from anybody: tensors are read without code, arrays without objects."""
    for path in MODULES:
        assert not imports(path) & {"joblib", "dill", "cloudpickle", "shelve"}, path
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called = ast.unparse(node.func)
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            forbidden = {"pickle.load", "pickle.loads", "pickle.Unpickler", "pd.read_pickle"}
            assert called not in forbidden, where
            if called in SAFE:
                name, by_default, safe = SAFE[called]
                given = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert given.get(name, by_default) == safe, where


def test_every_module_opens_with_its_sentence():
    for path in [*MODULES, *sorted(ROOT.glob("tests/**/*.py")), *sorted(ROOT.glob("tools/*.py"))]:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_no_module_is_a_drawer():
    drawers = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}
    assert not [path for path in MODULES if path.stem in drawers]


@pytest.mark.parametrize("step", sorted(path.stem for path in ROOT.glob("mammo/steps/[a-z]*.py")))
def test_a_step_has_its_entry_point_and_its_door(step):
    assert (ROOT / "entrypoints" / f"{step}.py").exists()
    assert f"\n  {step}:\n" in (ROOT / "MLproject").read_text()


def test_every_entry_point_has_its_step():
    entries = re.findall(r"^  (\w+):$", (ROOT / "MLproject").read_text(), re.MULTILINE)
    modules = {path.stem for path in ROOT.glob("entrypoints/[a-z]*.py")}
    steps = {path.stem for path in ROOT.glob("mammo/steps/[a-z]*.py")}
    assert set(entries) == modules == steps


# Written in pieces, so that this file may stand in the search too.
FORBIDDEN = {
    "a package registry's host": r"py[p]i\.org|python[h]osted|npm[j]s\.(org|com)|deb\.deb[i]an",
    "a path of somebody's machine": r"[\"'\s(=]/(home|User[s]|mn[t]|wor[k]|root)/",
    "an unfinished piece": r"\b(TO[D]O|FIX[M]E|X[X]X)\b",
    "a bare except": r"except[:]",
}


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_no_file_holds(name):
    found = re.compile(FORBIDDEN[name])
    for path in tracked_files():
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            assert not found.search(line), f"{path.relative_to(ROOT)}:{number} holds {name}: {line}"


def tracked_files() -> list[Path]:
    """Text files under version control."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    pictures = {".png", ".jpg", ".pdf"}
    return [path for path in paths if path.is_file() and path.suffix not in pictures]
