"""Rows that are kept for ``GET /sample``: a uniform sample of what each revision was asked.

A row holds a number for each feature and output, and for a text the place of its category. A text
that the reference does not list is not kept: it could be anybody's, and of any length. So a row has
a fixed size, whatever was sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mooring_collector.extraction import UNSEEN, Extractor, Table
from mooring_collector.grid import Floats
from mooring_collector.settings import Column

#: Revisions whose rows are kept; the one that went longest without a row makes room. Two or three
#: have traffic at a time.
MOST_REVISIONS = 4
#: Of the rows of one revision.
MOST_BYTES = 16 << 20
#: What stands for a text that the reference does not list; `mooring reference build` knows it.
UNSEEN_TEXT = "(unseen)"
#: Values that are shown in one go: a millisecond, and 150 KiB of JSON at most.
_PIECE = 1 << 10
#: Below it each integer is a float, and above it none is written as an integer.
_EXACT = 2.0**53

Places = NDArray[np.int64]


class Reservoir:
    """A uniform sample of all rows so far (Vitter's algorithm R), a batch of rows at a time."""

    def __init__(self, size: int, columns: int, seed: int | None = None) -> None:
        self.rows: Floats = np.empty((size, columns))
        self.seen = 0
        self._arrived = np.empty(size, dtype=np.int64)
        self._random = np.random.default_rng(seed)

    def add(self, rows: Floats) -> None:
        """Takes some of them, in the place of others once it is full."""
        chosen, places = self.choose(len(rows))
        self.rows[places] = rows[chosen]

    def choose(self, count: int) -> tuple[Places, Places]:
        """Which of so many new rows are taken, and the places that they are to be put in.

        A place may be named twice: its last row stays.
        """
        size = len(self.rows)
        order = np.arange(self.seen, self.seen + count)
        places = order.copy()
        late = max(size - self.seen, 0)
        drawn = self._random.random(max(count - late, 0))
        places[late:] = drawn * (order[late:] + 1)
        chosen = np.flatnonzero(places < size)
        self.seen += count
        self._arrived[places[chosen]] = order[chosen]
        return chosen, places[chosen]

    def kept(self) -> Floats:
        """The sample in the order in which it came, shape (rows, columns)."""
        return self.rows[self.order()]

    def order(self) -> Places:
        """The places of its rows, the oldest first."""
        return np.argsort(self._arrived[: min(self.seen, len(self.rows))])


class Samples:
    """The reservoirs of the revisions that were asked last."""

    def __init__(self, rows: int, features: Extractor, outputs: Extractor) -> None:
        #: In the order of a row's values.
        self._groups = {
            key: [(one, tuple(one.grid.categories) if one.grid else ()) for one in columns]
            for key, columns in (
                ("features", (*features.numeric, *features.texts)),
                ("outputs", (*outputs.numeric, *outputs.texts)),
            )
        }
        self._columns = max(1, sum(map(len, self._groups.values())))
        self.size = min(rows, MOST_BYTES // (8 * self._columns))
        self._kept: dict[str, Reservoir] = {}

    def add(self, revision: str, request: Table, answer: Table | None) -> None:
        """Takes the rows of a request with those of its answer; None is one that says nothing."""
        if not self.size or not request.rows:
            return
        reservoir = self._kept.pop(revision, None)
        if reservoir is None:
            if len(self._kept) >= MOST_REVISIONS:
                del self._kept[next(iter(self._kept))]
            reservoir = Reservoir(self.size, self._columns)
        self._kept[revision] = reservoir  # the last one is the one that was asked last
        chosen, places = reservoir.choose(request.rows)
        if not len(chosen):
            return
        parts: list[NDArray[Any]] = [request.numbers[chosen], request.cells[chosen]]
        if answer is not None and answer.rows == request.rows:
            parts += [answer.numbers[chosen], answer.cells[chosen]]
        found = np.concatenate(parts, axis=1, dtype=np.float64)
        # Without an answer, NaN in each column is neither a number nor a category.
        reservoir.rows[places] = np.nan
        reservoir.rows[places, : found.shape[1]] = found

    def shown(self) -> Iterator[list[dict[str, Any]]]:
        """All rows, by feature and output, some at a time; each revision's in the order of time.

        Rows that come meanwhile may be among them.
        """
        together = max(1, _PIECE // self._columns)
        for name, reservoir in list(self._kept.items()):
            order = reservoir.order()
            for start in range(0, len(order), together):
                rows = reservoir.rows[order[start : start + together]].tolist()
                yield [{"revision": name, **self._by_name(row)} for row in rows]

    def _by_name(self, row: Sequence[float]) -> dict[str, dict[str, Any]]:
        values = iter(row)
        return {
            key: {
                column.name: _number(column, value) if column.numeric else _text(known, value)
                # The row comes last, so that none of its values is lost where the columns end.
                for (column, known), value in zip(columns, values, strict=False)
            }
            for key, columns in self._groups.items()
        }


def _number(column: Column, value: float) -> Any:
    """As a request would write it, so that its type is seen; None is missing."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if column.type == "boolean" and value in (0, 1):
        return value == 1
    whole = column.type in ("integer", "boolean") and value.is_integer()
    return int(value) if whole and abs(value) < _EXACT else value


def _text(known: Sequence[str], cell: float) -> str | None:
    if 0 <= cell < len(known):
        return known[int(cell)]
    return UNSEEN_TEXT if cell == UNSEEN else None
