"""docs/reliability.md names every scenario, and the tests that it names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
_ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_PAGES = ("docs/reliability.md", "SECURITY.md")


def _text(page: str) -> str:
    path = REPOSITORY / page
    return path.read_text() if path.exists() else ""


def _tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_all_34_scenarios_are_there_and_each_names_a_test() -> None:
    rows = {int(number): shown for number, _, shown in _ROW.findall(_text("docs/reliability.md"))}
    assert sorted(rows) == list(range(1, 35))
    assert [number for number, shown in rows.items() if not _TEST.search(shown)] == []


def test_each_of_the_threats_names_a_test() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", _text("SECURITY.md"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 21))
    assert [number for number, shown in rows if not _TEST.search(shown)] == []


@pytest.mark.parametrize("page", _PAGES)
def test_every_test_that_is_named_exists(page: str) -> None:
    named = _TEST.findall(_text(page))
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (REPOSITORY / file).exists() or name not in _tests(REPOSITORY / file)
    ]
    assert missing == []
