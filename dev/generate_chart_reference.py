"""Write docs/reference/chart.md: every value of the chart, from its schema and its defaults.

Usage: ``generate_chart_reference.py [--check]``; with ``--check`` nothing is written, and the exit
code is 1 when the file is stale.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "mooring"
TARGET = ROOT / "docs" / "reference" / "chart.md"
HEAD = """<!-- Generated from helm/mooring/values.schema.json by `make docs`: do not edit. -->
# Values of the chart

Unknown values are refused. The reasons for the defaults stand in `helm/mooring/values.yaml`.

| value | default | what it is |
| --- | --- | --- |
"""

Schema = dict[str, Any]


def cell(text: str) -> str:
    """Text that stays within one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def rows(schema: Schema, node: Schema, value: Any, path: str) -> Iterator[str]:
    """One row for each value that has no values of its own."""
    if name := node.get("$ref", "").rpartition("/")[2]:
        node = {**schema["definitions"][name], **node}
    if "properties" not in node:
        default = "" if value is None else f"`{json.dumps(value)}`"
        yield f"| `{path}` | {cell(default)} | {cell(node['description'])} |\n"
        return
    for name, field in node["properties"].items():
        part = value.get(name) if isinstance(value, dict) else None
        yield from rows(schema, field, part, f"{path}.{name}" if path else name)


def document() -> str:
    """The whole file."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return HEAD + "".join(rows(schema, schema, values, ""))


def main(arguments: list[str]) -> int:
    """Write or check; return the exit code."""
    text = document()
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    if "--check" in arguments:
        print(f"{TARGET.relative_to(ROOT)} is stale: run make docs", file=sys.stderr)
        return 1
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
