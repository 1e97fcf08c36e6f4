"""What a figure was measured on, to stand beside it, and how figures are shown."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version

from rich.console import Console
from rich.table import Table


def describe() -> str:
    """Date, cores, memory, kernel, Python and the libraries that matter, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("kopf", "kubernetes", "aiohttp"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {libraries}"
    )


def show(title: str, runs: Mapping[str, Mapping[str, object]]) -> None:
    """Print a table, a column for each run and a line for each of its figures, and the machine."""
    console, table = Console(), Table(title=title)
    table.add_column("")
    for heading in runs:
        table.add_column(heading, justify="right")
    for name in next(iter(runs.values())):
        table.add_row(name.replace("_", " "), *(str(run[name]) for run in runs.values()))
    console.print(table)
    console.print(describe())
