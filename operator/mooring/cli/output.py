"""Printing: a console that knows whether a person reads it, and data as JSON or YAML."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console

#: What goes to a file or another program is never folded: a line is a line.
_UNFOLDED = 10_000


def console(no_color: bool = False) -> Console:
    """Standard output, as wide as the terminal; unfolded where there is none."""
    wide = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(
        no_color=no_color or None,
        highlight=False,
        markup=False,
        emoji=False,
        width=_UNFOLDED if wide else None,
    )


def data(value: Any, form: str) -> str:
    """The value as ``json`` or ``yaml``, ending in a newline."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))
