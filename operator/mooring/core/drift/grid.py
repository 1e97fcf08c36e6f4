"""Where values are counted: one fixed, fine grid per feature.

Histograms outlive rollouts, so the grid of a deployment is fixed once, and its hash is a label of
everything that is counted on it: counts of different grids never meet. About 64 fine cells are
enough to form any tested bins from later (``coarse``).

The cells of a numeric feature are half-open to the left, ``(lower, upper]``, as the buckets of a
Prometheus histogram are. In order: below the reference's range, the tail up to its 0.1 %
quantile, the cells between, the tail above its 99.9 % quantile, above its range; then missing and
non-finite. The cells of a categorical feature are its categories, then unseen and missing.

A value that holds more than a cell's worth of the reference is an *atom* and has a cell of its
own. It spans the neighbouring single-precision numbers, as the range does, so that a value which
travels as FP32 is counted where the FP64 of the training table was. NaN is the only way in which
a tensor can say "missing", and is counted so; the infinities are non-finite.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mooring.core.drift.arrays import FloatArray, IntArray

Kind = Literal["numeric", "categorical"]
#: Twice the rounding of a single-precision number, relative to its size.
_SINGLE = 2.0**-22
_NEAR_ZERO = 1e-30


class InvalidGrid(ValueError):
    """A grid that cannot be counted on; the message says what is wrong with it."""


def slack(value: float) -> float:
    """How far a value may be from itself after a journey in single precision."""
    return max(abs(value) * _SINGLE, _NEAR_ZERO)


@dataclass(frozen=True, slots=True)
class FeatureGrid:
    """The cells of one feature.

    Attributes:
        name: the feature's name.
        kind: numeric or categorical.
        edges: numeric: rising upper bounds of all ordered cells but the last, which is unbounded.
            The first is the lower end of the reference's range, the last its upper end.
        atoms: numeric: the values with a cell of their own, rising.
        low_tail, high_tail: numeric: whether the first (last) cell inside the range is the tail
            beyond the reference's 0.1 % (99.9 %) quantile.
        categories: categorical: the known values, the most frequent first.
        open: categorical: the reference itself held more values than are listed, so "unseen"
            means "other" and is no sign of broken data.
    """

    name: str
    kind: Kind
    edges: tuple[float, ...] = ()
    atoms: tuple[float, ...] = ()
    low_tail: bool = False
    high_tail: bool = False
    categories: tuple[str, ...] = ()
    open: bool = False

    def __post_init__(self) -> None:
        if self.kind == "numeric":
            rising = all(a < b for a, b in zip(self.edges, self.edges[1:], strict=False))
            if len(self.edges) < 2 or not rising or not all(map(math.isfinite, self.edges)):
                raise InvalidGrid(f"feature {self.name}: edges must be finite, rising, at least 2")
        elif self.kind != "categorical":
            raise InvalidGrid(f"feature {self.name}: kind {self.kind!r} is unknown")
        elif len(set(self.categories)) != len(self.categories):
            raise InvalidGrid(f"feature {self.name}: a category is listed twice")

    @property
    def ordered(self) -> int:
        """How many cells have an order (numeric) or are listed categories: they come first."""
        return len(self.edges) + 1 if self.kind == "numeric" else len(self.categories)

    @property
    def cells(self) -> int:
        """How many cells there are, the special ones included."""
        return self.ordered + 2

    @property
    def missing(self) -> int:
        """The cell of missing values."""
        return self.ordered if self.kind == "numeric" else self.ordered + 1

    @property
    def non_finite(self) -> int | None:
        """The cell of infinities; a category cannot be one."""
        return self.ordered + 1 if self.kind == "numeric" else None

    @property
    def unseen(self) -> int | None:
        """The cell of categories that are not listed."""
        return self.ordered if self.kind == "categorical" else None

    @property
    def below(self) -> int | None:
        """The cell below the reference's range."""
        return 0 if self.kind == "numeric" else None

    @property
    def above(self) -> int | None:
        """The cell above the reference's range."""
        return self.ordered - 1 if self.kind == "numeric" else None

    def labels(self) -> tuple[str, ...]:
        """One short text per cell, for tables and metrics."""
        if self.kind == "categorical":
            return (*self.categories, "unseen", "missing")
        atom_cells = dict(zip(self.atom_cells(), self.atoms, strict=True))
        bounds = [f"{edge:.6g}" for edge in self.edges]
        inner = [
            f"{atom_cells[cell]:.6g}"
            if cell in atom_cells
            else f"({bounds[cell - 1]}, {bounds[cell]}]"
            for cell in range(1, len(bounds))
        ]
        return (f"<= {bounds[0]}", *inner, f"> {bounds[-1]}", "missing", "nonFinite")

    def atom_cells(self) -> tuple[int, ...]:
        """The cell of each atom."""
        return tuple(int(i) for i in np.searchsorted(self.edges, self.atoms, side="left"))

    def centres(self) -> FloatArray:
        """A typical value of every ordered cell of a numeric feature, shape (ordered,).

        The middle of a cell, the atom itself, and the ends of the range beyond them: the distance
        to a value out of range is unknown once it has been counted.
        """
        edges = np.array(self.edges, dtype=np.float64)
        middles = np.concatenate(([edges[0]], (edges[:-1] + edges[1:]) / 2, [edges[-1]]))
        middles[list(self.atom_cells())] = self.atoms
        return middles

    def numeric_cells(self, values: FloatArray) -> IntArray:
        """The cell of every value; NaN is missing. Any shape."""
        cells = np.searchsorted(self.edges, values, side="left").astype(np.int64)
        cells[np.isinf(values)] = self.ordered + 1
        cells[np.isnan(values)] = self.ordered
        return cells

    def category_cells(self, values: Iterable[str | None]) -> IntArray:
        """The cell of every category; None is missing."""
        places: dict[str | None, int] = {name: i for i, name in enumerate(self.categories)}
        places[None] = self.ordered + 1
        return np.array([places.get(value, self.ordered) for value in values], dtype=np.int64)

    def count(self, values: FloatArray | Sequence[str | None]) -> FloatArray:
        """Counts per cell, shape (cells,): numbers for a numeric feature, else texts or None."""
        cells = (
            self.numeric_cells(np.asarray(values, dtype=np.float64))
            if self.kind == "numeric"
            else self.category_cells(values)
        )
        return np.bincount(cells.ravel(), minlength=self.cells).astype(np.float64)

    def to_json(self) -> dict[str, Any]:
        """The grid as plain JSON, without what is empty."""
        if self.kind == "categorical":
            rest: dict[str, Any] = {"categories": list(self.categories)}
            return {"name": self.name, "kind": self.kind, **rest, **_true("open", self.open)}
        return {
            "name": self.name,
            "kind": self.kind,
            "edges": list(self.edges),
            **({"atoms": list(self.atoms)} if self.atoms else {}),
            **_true("lowTail", self.low_tail),
            **_true("highTail", self.high_tail),
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> FeatureGrid:
        """Reads ``to_json``; raises InvalidGrid."""
        try:
            return FeatureGrid(
                name=str(raw["name"]),
                kind=raw["kind"],
                edges=tuple(float(edge) for edge in raw.get("edges", ())),
                atoms=tuple(float(atom) for atom in raw.get("atoms", ())),
                low_tail=bool(raw.get("lowTail", False)),
                high_tail=bool(raw.get("highTail", False)),
                categories=tuple(str(name) for name in raw.get("categories", ())),
                open=bool(raw.get("open", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InvalidGrid):
                raise
            raise InvalidGrid(f"a feature's grid cannot be read: {error!r}") from error


def _true(key: str, value: bool) -> dict[str, bool]:
    return {key: True} if value else {}


def grid_hash(grids: Iterable[FeatureGrid]) -> str:
    """16 hex digits that name a set of grids: the label of all that is counted on them."""
    text = json.dumps([grid.to_json() for grid in grids], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
