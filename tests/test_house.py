"""House rules that a program can check: sizes, module docstrings, no path of anybody's machine in the repository."""

import ast
import statistics
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path for package in ("crds/src", "operator/src", "trainer/src") for path in (ROOT / package).rglob("*.py")
)


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, without the docstring."""
    body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_no_function_has_more_than_60_lines_and_most_are_short() -> None:
    sizes = {f"{path.name}:{node.name}": body_lines(node) for path in SOURCES for node in functions(path)}
    too_long = {name: size for name, size in sizes.items() if size > 60}
    deciles = statistics.quantiles(sizes.values(), n=10)
    assert too_long == {}
    assert statistics.median(sizes.values()) <= 8
    assert deciles[8] <= 30


def test_no_file_has_more_than_400_lines() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path} has no module docstring"


def test_the_operator_folder_is_no_package_because_it_would_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_nothing_of_a_workplace_is_in_the_repository() -> None:
    words = ["/wor" + "k/main", "../sha" + "red", "/wor" + "k/shared", ".libr" + "ary/"]
    command = ["git", "grep", "-nIF", *[part for word in words for part in ("-e", word)]]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_every_decision_record_has_a_number_of_its_own() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [int(path.name[:4]) for path in records]
    assert numbers == list(range(1, len(records) + 1))
    assert [path.read_text().split(".")[0] for path in records] == [f"# {number}" for number in numbers]
