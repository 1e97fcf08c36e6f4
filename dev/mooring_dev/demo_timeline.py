"""How the demo speaks: a timeline of what happens, and what the cluster itself says."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

_MARGIN = 10
_INDENT = 2


class Timeline:
    """Prints to standard output, with the time since the demo began before every chapter.

    Colour follows rich's rules (a terminal, NO_COLOR), unless it is turned off.
    """

    def __init__(self, *, colour: bool = True) -> None:
        self._console = Console(no_color=not colour or None, highlight=False)
        self._begin = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._begin

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """A part of the story; closes with the seconds that it took."""
        begin = time.monotonic()
        self._console.print(f"\n[dim]{self.elapsed:6.1f} s[/dim]  [bold]{escape(title)}[/bold]")
        yield
        self._console.print(f"[dim]          done in {time.monotonic() - begin:.1f} s[/dim]")

    def say(self, text: str) -> None:
        """A sentence of the story."""
        self._lines(text, _MARGIN)

    def good(self, text: str) -> None:
        """A sentence that says something went as it should."""
        self._lines(text, _MARGIN, "green")

    def quote(self, words: str) -> None:
        """What the cluster said, word for word."""
        self._lines(words, _MARGIN + _INDENT, "yellow")

    def _lines(self, text: str, margin: int, style: str | None = None) -> None:
        # Not rich's own wrapping, which breaks digests and addresses in the middle.
        width = max(40, min(self._console.width, 110) - margin)
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        for line in lines or [""]:
            self._console.print(" " * margin + escape(line), style=style, soft_wrap=True)

    def shell(self, command: str, output: str) -> None:
        """A command and what it printed, as in a terminal: lines are never broken."""
        margin = " " * _MARGIN
        self._console.print(f"{margin}[cyan]$ {escape(command)}[/cyan]", soft_wrap=True)
        for line in output.rstrip().splitlines():
            self._console.print(f"{margin}{escape(line)}".rstrip(), soft_wrap=True)

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Figures side by side."""
        table = Table(*titles, box=None, pad_edge=False, header_style="dim")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._console.print(Padding(table, (0, 0, 0, _MARGIN + _INDENT)))
