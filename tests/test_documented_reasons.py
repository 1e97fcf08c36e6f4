"""Reasons of conditions and Events are what people search for: docs/operations.md has them all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
CORE = ROOT / "operator" / "mooring" / "core"

#: What is made with a reason as its first argument that is a word of its own; an Event's is second.
MAKERS = {"Finding", "Gap", "Hold", "Rejection", "CannotRender", "Event"}
_REASON = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*")
_STATUSES = {"True", "False", "Unknown", "Normal", "Warning"}


def reasons() -> Iterator[tuple[str, str]]:
    """Each reason that stands as a literal, with the file that it stands in."""
    for path in sorted(CORE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id not in MAKERS:
                continue
            for argument in node.args[:2]:
                value = argument.value if isinstance(argument, ast.Constant) else None
                if isinstance(value, str) and _REASON.fullmatch(value) and value not in _STATUSES:
                    yield value, path.name


def test_every_reason_is_explained_where_operators_look() -> None:
    found = set(reasons())
    assert len(found) > 50, "the literals are no longer found"
    missing = sorted(f"{name} ({file})" for name, file in found if f"`{name}`" not in OPERATIONS)
    assert missing == []
