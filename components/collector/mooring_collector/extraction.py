"""From the tensors of a body to the columns that are counted."""

from __future__ import annotations

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mooring_collector.errors import OversizedBody
from mooring_collector.grid import Floats
from mooring_collector.settings import MOST_COLUMNS, Column
from mooring_collector.tensors import UNNAMED, Matrix, Tensors, rows_of

_WORDS = {"nan": math.nan, "infinity": math.inf, "inf": math.inf,
          "-infinity": -math.inf, "-inf": -math.inf, "": math.nan}  # fmt: skip
#: Names come from whoever asks: a form is kept where it is as small as one of known columns may be,
#: so that all together take 16 MiB at most.
_MOST_PLANS = 64
_MOST_KEPT_NAMES = 2 * MOST_COLUMNS
_MOST_KEPT_BYTES = 128 << 10
_LONGEST_TEXT = 1024
#: Values of a table that is put together from several tensors, 32 MiB: of a body with all of its
#: columns there are no more, and one with few of them could ask for gigabytes.
_MOST_CELLS = 1 << 22
#: What stands for a text in the place of its category; see :class:`Table`.
UNSEEN, _MISSING, _NOWHERE = -1, -2, -3

_Form = tuple[tuple[str, int], ...]
"""The tensors of a body: their names and widths."""


@dataclass(slots=True)
class Table:
    """The columns of one body.

    Attributes:
        rows: how many rows it has.
        numbers: the numeric columns, shape (rows, numeric columns); NaN is missing.
        cells: the columns of texts, shape (rows, columns of texts): the category, -1 for an unseen
            one, -2 for missing, -3 for no text at all.
        wrong: per numeric column, values that are no numbers; None when there are none. They are
            NaN in ``numbers``, and are not missing.
        violations: rows by (column or tensor, rule).
        unknown: tensors that no column reads.
    """

    rows: int
    numbers: Floats
    cells: NDArray[np.int32]
    wrong: NDArray[np.int64] | None = None
    violations: Counter[tuple[str, str]] = field(default_factory=Counter)
    unknown: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where the columns stand in bodies of one form.

    ``blocks`` are (tensor, its columns, columns of the table); ``texts`` (tensor, column).
    """

    blocks: tuple[tuple[str, Any, Any], ...]
    texts: tuple[tuple[str, int] | None, ...]
    lost: tuple[str, ...]
    unknown: tuple[str, ...]


def digest(text: str) -> str:
    """What a hashed feature's texts are replaced by: 16 hex digits of SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


class Extractor:
    """Reads the same columns out of many bodies.

    ``whole``: the columns are all that there should be, so a tensor that none of them reads is
    unknown. A caller's mistake shows so; a model may well answer more than is watched.
    """

    def __init__(
        self, columns: Sequence[Column], ordered: Sequence[str] = (), *, whole: bool = True
    ) -> None:
        self._complete = whole
        kept = [one for one in columns if not one.excluded]
        self.numeric = tuple(one for one in kept if one.numeric)
        self.texts = tuple(one for one in kept if not one.numeric)
        self._known = {one.tensor for one in columns} | {one.name for one in columns}
        self._positions = {name: place for place, name in enumerate(ordered)}
        self._by_order = bool(ordered) and not any(one.exact for one in columns)
        self._spelled = tuple(map(_truths, self.texts))
        self._plans: dict[_Form, _Plan] = {}

    def read(self, tensors: Tensors) -> Table:
        """The columns of one body. Bodies without rows have none.

        Raises:
            OversizedBody: it has so many rows that their columns would not fit into memory.
        """
        rows = rows_of(tensors)
        form: _Form = tuple((name, values.shape[1]) for name, values in tensors.items())
        plan = self._plans.get(form)
        if plan is None:
            plan = self._planned(dict(form))
            if _small(form):
                if len(self._plans) >= _MOST_PLANS:
                    self._plans.clear()
                self._plans[form] = plan
        whole = self._whole(plan, tensors, rows)
        if rows * ((len(self.numeric) if whole is None else 0) + len(self.texts)) > _MOST_CELLS:
            raise OversizedBody(f"the columns of {rows} rows are too many values")
        table = Table(
            rows,
            np.full((rows, len(self.numeric)), np.nan) if whole is None else whole,
            np.full((rows, len(self.texts)), _MISSING, np.int32) if self.texts else _none(rows),
            unknown=plan.unknown,
        )
        for name, sources, targets in plan.blocks if whole is None else ():
            values = tensors[name]
            if len(values) != rows:
                for target in np.atleast_1d(np.arange(len(self.numeric))[targets]).tolist():
                    table.violations[self.numeric[target].name, "schema"] += rows
            elif values.dtype == object:
                self._slowly(table, values[:, sources], targets)
            else:
                table.numbers[:, targets] = values[:, sources]
        for target, place in enumerate(plan.texts):
            if place is not None:
                self._texts(table, target, tensors[place[0]], place[1])
        for lost in plan.lost:
            table.violations[lost, "missing"] += rows
        return table

    def _whole(self, plan: _Plan, tensors: Tensors, rows: int) -> Floats | None:
        """All numeric columns at once, where they are neighbours in one tensor: the usual case."""
        if len(plan.blocks) != 1 or len(plan.lost) > 0:
            return None
        name, sources, targets = plan.blocks[0]
        values = tensors[name]
        if values.dtype == object or len(values) != rows or not isinstance(targets, slice):
            return None
        found: Floats = values[:, sources]
        # A few columns must not keep a large tensor in memory until they are binned.
        return found if values.size <= 2 * found.size else found.copy()

    # --- where columns stand --------------------------------------------------------------------

    def _planned(self, form: dict[str, int]) -> _Plan:
        by_tensor: dict[str, tuple[list[int], list[int]]] = {}
        lost = []
        for target, column in enumerate(self.numeric):
            place = self._place(column, form)
            if place is None:
                lost.append(column.name)
                continue
            sources, targets = by_tensor.setdefault(place[0], ([], []))
            sources.append(place[1])
            targets.append(target)
        texts = tuple(self._place(column, form) for column in self.texts)
        lost += [c.name for c, place in zip(self.texts, texts, strict=True) if place is None]
        used = by_tensor.keys() | {place[0] for place in texts if place}
        return _Plan(
            tuple((name, _index(s), _index(t)) for name, (s, t) in by_tensor.items()),
            texts,
            tuple(lost),
            tuple(n for n in form if n and n not in used and n not in self._known)
            if self._complete
            else (),
        )

    def _place(self, column: Column, form: dict[str, int]) -> tuple[str, int] | None:
        """The tensor and its column; None where the body has no such place."""
        if column.name in form and not column.exact:
            # Of no width: a detector that has found nothing.
            return (column.name, 0) if form[column.name] else None
        if column.tensor in form:
            return (column.tensor, column.index) if column.index < form[column.tensor] else None
        if len(form) != 1:
            return None
        ((only, width),) = form.items()
        if only == UNNAMED and column.exact:
            return (only, column.index) if column.index < width else None
        # One row of everything, under a name or none: the columns are in the reference's order. An
        # answer under another name is another answer.
        whole = self._complete or only == UNNAMED
        if self._by_order and whole and width == len(self._positions):
            return only, self._positions[column.name]
        return None

    # --- values that are not plain numbers ------------------------------------------------------

    def _slowly(self, table: Table, values: Matrix, targets: Any) -> None:
        wrong = np.zeros(len(self.numeric), dtype=np.int64)
        for place, target in enumerate(np.arange(len(self.numeric))[targets].tolist()):
            for row, value in enumerate(values[:, place].tolist()):
                number = _number(value)
                if number is None:
                    wrong[target] += 1
                else:
                    table.numbers[row, target] = number
        if wrong.any():
            table.wrong = wrong if table.wrong is None else table.wrong + wrong
            for target in np.flatnonzero(wrong).tolist():
                table.violations[self.numeric[target].name, "type"] += int(wrong[target])

    def _texts(self, table: Table, target: int, values: Matrix, index: int) -> None:
        column = self.texts[target]
        if len(values) != table.rows:
            table.violations[column.name, "schema"] += table.rows
            table.cells[:, target] = _NOWHERE
            return
        known = column.grid.categories if column.grid else {}
        spelled = self._spelled[target]
        for row, value in enumerate(values[:, index].tolist()):
            text = _text(value)
            if text is not None and not isinstance(value, str):
                text = spelled.get(text, text)
            if text is None:
                if value is not None and not (isinstance(value, float) and math.isnan(value)):
                    table.violations[column.name, "type"] += 1
                    table.cells[row, target] = _NOWHERE
                continue
            if column.domain is not None and text not in column.domain:
                table.violations[column.name, "domain"] += 1
            if column.pattern is not None and not _matches(column.pattern, text):
                table.violations[column.name, "pattern"] += 1
            if column.hashed:
                text = digest(text)
            table.cells[row, target] = known.get(text, UNSEEN)


def _small(form: _Form) -> bool:
    if len(form) > _MOST_KEPT_NAMES:
        return False
    return sum(sys.getsizeof(name) for name, _ in form) <= _MOST_KEPT_BYTES


def _none(rows: int) -> NDArray[np.int32]:
    return np.empty((rows, 0), dtype=np.int32)


def _index(places: list[int]) -> Any:
    """A slice where the places are a row of neighbours: numpy copies those much faster."""
    if places == list(range(places[0], places[0] + len(places))):
        return slice(places[0], places[0] + len(places))
    return np.array(places)


def _number(value: Any) -> float | None:
    """A number, NaN for a missing one, or None for what is neither."""
    if value is None:
        return math.nan
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return _WORDS.get(value.lower()) if isinstance(value, str) and len(value) < 16 else None


def _text(value: Any) -> str | None:
    """A category as text; None where the value is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) and abs(value) < 1e300 else None


def _truths(column: Column) -> Mapping[str, str]:
    """How a column of categories spells the truth, where that is not how a body does.

    Truth values alone are numbers in a tensor, beside others they are not, and a table that the
    reference was made of may have had either.
    """
    known = {*(column.grid.categories if column.grid else ()), *(column.domain or ())}

    def knows(*words: str) -> bool:
        return any((digest(word) if column.hashed else word) in known for word in words)

    if knows("true", "false") and not knows("1", "0"):
        return {"1": "true", "0": "false"}
    if knows("1", "0") and not knows("true", "false"):
        return {"true": "1", "false": "0"}
    return {}


def _matches(pattern: Any, text: str) -> bool:
    try:
        return len(text) <= _LONGEST_TEXT and pattern.fullmatch(text) is not None
    except UnicodeError:  # half of a surrogate pair
        return False
