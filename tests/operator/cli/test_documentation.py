"""docs/cli.md names every command, rule and exit code that there is, and no other."""

import ast
import re
from pathlib import Path

from typer.main import get_command

from bessemer_operator.cli import problems
from bessemer_operator.cli.main import app
from tests.operator.core import test_lint, test_lint_limits, test_lint_memory, test_lint_merges, test_lint_methods

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/cli.md").read_text()
SOURCES = ROOT / "operator/src/bessemer_operator"


def rows(head: str) -> list[str]:
    """Cells of the first column of the table under `head`."""
    table = PAGE.split(head, 1)[1].split("\n\n", 1)[0]
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|") and "---" not in line]


def test_every_command_is_told() -> None:
    told = {name for cell in rows("| command | what it does |") for name in re.findall(r"`([a-z-]+)", cell)}
    assert told == set(get_command(app).commands)  # type: ignore[attr-defined]


def rules_in(source: Path) -> set[str]:
    """Rules that a module can find: the second argument of error(), warning() and unknown().

    Where that is a variable, the rules stand in a table of the module: two capitalised words or more, in one.
    """
    found = set()
    tree = ast.parse(source.read_text())
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") in {"error", "warning", "unknown"}):
            continue
        if isinstance(call.args[1], ast.Name):
            words = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
            found |= {word for word in words if isinstance(word, str) and re.fullmatch(r"([A-Z][a-z]+){2,}", word)}
            continue
        name = str(ast.literal_eval(call.args[1]))
        found.add(f"Unknown{name.title().replace(' ', '')}" if call.func.id == "unknown" else name)  # type: ignore[attr-defined]
    return found


TABLES = (test_lint, test_lint_limits, test_lint_memory, test_lint_merges, test_lint_methods)


def test_every_rule_is_told_and_has_a_case() -> None:
    rules = set().union(*(rules_in(source) for source in (SOURCES / "core").glob("lint*.py")))
    told = {name for cell in rows("| rule | severity | finds |") for name in re.findall(r"`([A-Za-z]+)`", cell)}
    assert told == rules | rules_in(SOURCES / "cli/lintfile.py")
    cases = [case for table in TABLES for case in getattr(table, "CASES", getattr(table, "LINT", ()))]
    assert {found.strip("[]").split(" ")[0] for case in cases for found in case.found} == rules


def test_every_exit_code_is_told() -> None:
    codes = {str(value) for name, value in vars(problems).items() if name.startswith("EXIT_")}
    assert set(rows("| code | meaning |")) == codes
