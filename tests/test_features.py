"""The feature table is complete, and what it says shows a feature exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = (ROOT / "docs" / "features.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in TABLE.splitlines()
    if re.match(r"\| [STNM]\d", line)
]
NUMBERS = {"S0": 45, "S1": 18, "S2": 15, "S3": 13, "S4": 23}
TRAPS = {"T0": "abcdefghijk", "T1": "abcde", "T2": "abcdefg", "T3": "abcdefgh", "T4": "abcde"}


def test_every_row_is_there_once():
    expected = [f"{group}.{n}" for group, last in NUMBERS.items() for n in range(1, last + 1)]
    expected += [f"{group}.{letter}" for group, letters in TRAPS.items() for letter in letters]
    expected += [f"N{n}" for n in range(1, 34)] + [f"M{n}" for n in range(1, 8)]
    assert [row[0] for row in ROWS] == expected


def test_each_state_is_known_and_partly_says_what_is_missing():
    for name, _, state, shown in ROWS:
        assert state in {"works", "partly", "planned"}, name
        assert bool(shown) == (state != "planned"), name
        assert state != "partly" or re.search(r"` \S|; \S", shown), name


def test_what_works_is_shown_by_a_test_or_command_that_exists():
    for name, _, state, shown in ROWS:
        if state == "planned":
            continue
        evidence = re.findall(r"`([^`]+)`", shown)[0]
        if "::" in evidence:
            file, test = evidence.split("::")
            assert (ROOT / file).exists(), f"{name}: {file}"
            assert test in functions(ROOT / file), f"{name}: {evidence}"
        else:
            program, entry = evidence.split()[:2]
            assert program in {"mammo", "make"}, f"{name}: {evidence}"
            assert program == "make" or (ROOT / "mammo" / "steps" / f"{entry}.py").exists(), name


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
