"""What has been counted, per revision and kind of traffic.

Numbers are not binned row by row: rows wait in a short list and are binned together, all rows of a
feature in one call. They wait at most until the next scrape, a second, or ``_TOGETHER`` rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mooring_collector.extraction import Extractor, Table
from mooring_collector.grid import Floats, Grid
from mooring_collector.settings import Column

_TOGETHER = 2048
#: Rows of one request that can be labelled.
MOST_ROWS = 64
SIZE_EDGES: tuple[int, ...] = tuple(256 * 4**step for step in range(9))
"""Bytes, 256 B to 16 MiB."""


class Sizes:
    """A histogram of body sizes."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SIZE_EDGES) + 1)
        self.total = 0

    def observe(self, size: int) -> None:
        """Counts one body of this many bytes."""
        place = 0
        for edge in SIZE_EDGES:
            if size <= edge:
                break
            place += 1
        self.counts[place] += 1
        self.total += size


class Histograms:
    """Counts per cell of every column that has a grid, and rows by broken rule."""

    def __init__(self, extractor: Extractor, names: int) -> None:
        self._extractor = extractor
        self._names = names
        self.numeric = extractor.numeric
        self.texts = extractor.texts
        self.cells: list[NDArray[np.int64]] = [_zeros(one.grid) for one in self.numeric]
        self.text_cells: list[NDArray[np.int64]] = [_zeros(one.grid) for one in self.texts]
        self.violations: Counter[tuple[str, str]] = Counter()
        self._waiting: list[Floats] = []
        self._rows = 0
        self._wrong = np.zeros(len(self.numeric), dtype=np.int64)
        self._unknown: set[str] = set()
        self._least = np.array([one.least for one in self.numeric])
        self._greatest = np.array([one.greatest for one in self.numeric])
        self._bounded = bool(np.isfinite([*self._least, *self._greatest]).any())
        self._integer = np.array([one.type == "integer" for one in self.numeric], dtype=bool)
        self._boolean = np.array([one.type == "boolean" for one in self.numeric], dtype=bool)

    def add(self, table: Table) -> None:
        """Counts the rows of one body; numbers a little later."""
        if self.numeric and table.rows:
            self._waiting.append(table.numbers)
            self._rows += table.rows
            if table.wrong is not None:
                self._wrong += table.wrong
            if self._rows >= _TOGETHER:
                self.flush()
        for target, column in enumerate(self.texts):
            if column.grid is not None:
                cells = table.cells[:, target]
                places = np.where(cells == -1, column.grid.ordered, cells)
                places = np.where(cells == -2, column.grid.missing, places)
                places = places[places >= 0]
                self.text_cells[target] += np.bincount(places, minlength=column.grid.cells)
        if table.violations:
            self.violations.update(table.violations)
        for name in table.unknown:
            self._count_unknown(name, table.rows)

    def flush(self) -> Floats | None:
        """Bins what waits, and gives it; None when nothing does."""
        if not self._waiting:
            return None
        waiting = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting, self._rows = [], 0
        for target, column in enumerate(self.numeric):
            if column.grid is not None:
                self.cells[target] += column.grid.count(waiting[:, target])
                # What is no number was noted as NaN, which is counted as missing.
                self.cells[target][column.grid.missing] -= self._wrong[target]
        self._wrong[:] = 0
        self._check(waiting)
        return waiting

    def _check(self, values: Floats) -> None:
        """The declared rules about numbers."""
        with np.errstate(invalid="ignore"):
            if self._bounded:
                outside = ((values < self._least) | (values > self._greatest)).sum(axis=0)
                self._note("range", outside)
            if self._integer.any() or self._boolean.any():
                finite = np.isfinite(values)
                wrong = self._integer & finite & (values != np.floor(values))
                wrong |= self._boolean & finite & (values != 0) & (values != 1)
                self._note("type", wrong.sum(axis=0))

    def _note(self, rule: str, counts: NDArray[np.int64]) -> None:
        for target in np.flatnonzero(counts).tolist():
            self.violations[self.numeric[target].name, rule] += int(counts[target])

    def _count_unknown(self, name: str, rows: int) -> None:
        """Names come from whoever asks, so there are few of them, and short ones.

        Half of a surrogate pair, which JSON can spell, is in no text that could be sent on.
        """
        name = name[:64].encode("utf-8", "replace").decode()
        if name not in self._unknown and len(self._unknown) >= self._names:
            name = "(other)"
        else:
            self._unknown.add(name)
        self.violations[name, "schema"] += rows

    def series(self) -> Iterator[tuple[Column, NDArray[np.int64]]]:
        """Every column that has a grid, with its counts per cell."""
        both = (*zip(self.numeric, self.cells, strict=True),
                *zip(self.texts, self.text_cells, strict=True))  # fmt: skip
        yield from ((column, cells) for column, cells in both if column.grid is not None)


def _zeros(grid: Grid | None) -> NDArray[np.int64]:
    return np.zeros(grid.cells if grid else 0, dtype=np.int64)


class Outputs:
    """What one revision answered: counts per cell, and rows that repeat the row before."""

    def __init__(self, extractor: Extractor, names: int) -> None:
        self._histograms = Histograms(extractor, names)
        self.constant: Counter[str] = Counter()
        self._last: list[Any] | None = None

    @property
    def violations(self) -> Counter[tuple[str, str]]:
        return self._histograms.violations

    def add(self, table: Table) -> list[tuple[int, ...]]:
        """Counts one answer, and gives the cells of each row: numbers first, then texts.

        A cell of -1 is none: the value was not of its type, or the column has no grid. Of many
        rows no cells are given: nobody labels them one by one.
        """
        self._histograms.add(table)
        if table.rows > MOST_ROWS:
            self._repeated(np.concatenate((table.numbers, table.cells), axis=1))
            return []
        found = []
        numeric, texts = self._histograms.numeric, self._histograms.texts
        for values, cells in zip(table.numbers.tolist(), table.cells.tolist(), strict=True):
            row = [*values, *cells]
            if self._last is not None:
                for column, now, before in zip(self.columns(), row, self._last, strict=True):
                    if now == before:
                        self.constant[column.name] += 1
            self._last = row
            found.append(
                (
                    *(
                        c.grid.cell(v) if c.grid else -1
                        for c, v in zip(numeric, values, strict=True)
                    ),
                    *(_text_cell(c.grid, v) for c, v in zip(texts, cells, strict=True)),
                )
            )
        return found

    def _repeated(self, rows: Floats) -> None:
        before = rows[:1] * np.nan if self._last is None else np.array([self._last])
        equal = (rows == np.concatenate((before, rows[:-1]))).sum(axis=0)
        for column, count in zip(self.columns(), equal.tolist(), strict=True):
            if count:
                self.constant[column.name] += count
        self._last = rows[-1].tolist()

    def columns(self) -> Sequence[Column]:
        """In the order of a row's cells."""
        return (*self._histograms.numeric, *self._histograms.texts)

    def flush(self) -> None:
        """Bins what waits."""
        self._histograms.flush()

    def series(self) -> Iterator[tuple[Column, NDArray[np.int64]]]:
        return self._histograms.series()


def _text_cell(grid: Grid | None, cell: int) -> int:
    if grid is None or cell == -3:
        return -1
    if cell == -2:
        return grid.missing
    return grid.ordered if cell == -1 else cell
