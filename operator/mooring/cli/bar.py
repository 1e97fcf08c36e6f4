"""A bar of characters: how much of something is there."""

from __future__ import annotations

from rich.text import Text


def bar(share: float, style: str = "cyan", cells: int = 16) -> Text:
    """``share`` from 0 to 1; what lies beyond either is drawn as the end."""
    done = min(cells, max(0, int(share * cells)))
    return Text.assemble(("━" * done, style), ("┄" * (cells - done), "dim"))
