"""Tables that fit the terminal: what is typed again stays whole, the rest gives way in an order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column; one that is empty in every row is not shown.

    ``least`` is the number of columns of the terminal that it can do with, None for all that its
    cells take; ``shorten`` makes a cell fit (without it, cells are folded at blanks). ``drop`` says
    when it goes if there is no room: the highest first, 0 never.
    """

    name: str
    cells: Sequence[Text] = field(default_factory=list)
    least: int | None = None
    shorten: Callable[[str, int], str] | None = None
    drop: int = 0

    @property
    def natural(self) -> int:
        return max((cell.cell_len for cell in self.cells), default=0)

    @property
    def needs(self) -> int:
        """The least width at which it is worth showing."""
        wanted = self.natural if self.least is None else min(self.natural, self.least)
        return max(len(self.name), wanted)


def fit(columns: Sequence[Column], width: int) -> Table:
    """A table of these columns that is no wider than ``width``, if that can be."""
    shown = [column for column in columns if column.natural]
    while _total(shown) > width and any(column.drop for column in shown):
        last = max(shown, key=lambda column: column.drop)
        shown = [column for column in shown if column is not last]
    room = width - _total(shown)
    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="")
    rows: list[list[Text]] = [[] for _ in range(len(shown[0].cells) if shown else 0)]
    for column in shown:
        more = max(0, min(room, column.natural - column.needs))
        room -= more
        size = column.needs + more
        # A folded column is as wide as it may be; a whole one may not be shortened by the table.
        made.add_column(
            column.name,
            no_wrap=column.least is None or column.shorten is not None,
            min_width=size,
            max_width=size,
        )
        for row, cell in zip(rows, column.cells, strict=True):
            row.append(_cell(column, cell, size))
    for row in rows:
        made.add_row(*row)
    return made


def _total(shown: Sequence[Column]) -> int:
    return sum(column.needs + _GAP for column in shown) - _GAP


def _cell(column: Column, cell: Text, size: int) -> Text:
    if not cell.plain:
        return Text("-", "dim")
    if column.shorten is not None and cell.cell_len > size:
        return Text(column.shorten(cell.plain, size), cell.style)
    return cell
