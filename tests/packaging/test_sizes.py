"""A module fits in one's head, a function on one's screen."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MODULE_LINES = 400
FUNCTION_LINES = 60

MODULES = sorted(
    path
    for folder in ("kitd", "client/kitd_client", "tests/fakes", "bench")
    for path in (ROOT / folder).rglob("*.py")
)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MODULE_LINES
    assert {name: size for name, size in functions(path) if size > FUNCTION_LINES} == {}
