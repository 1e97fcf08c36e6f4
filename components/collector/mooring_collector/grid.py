"""The cells in which values are counted, as the reference's document lays them down.

The order of the cells and the bounds of each (open to the left, closed to the right) are those of
the document's writer: numeric features have one cell more than edges (below the range first, above
it last), then missing and non-finite; categorical ones have their categories, then unseen and
missing. The document names its grid by a hash, which is a label of all that is counted, so nothing
counted here is ever compared with another reference.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from mooring_collector.errors import ConfigurationError

FORMAT = 1
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of one feature or output.

    Attributes:
        name: its name.
        edges: numeric: rising bounds; empty for a categorical one.
        categories: categorical: text to cell.
        numeric: which of the two it is.
        type: what the reference's values are: integer, number, boolean or string.
    """

    name: str
    edges: tuple[float, ...] = ()
    categories: Mapping[str, int] = field(default_factory=dict)
    numeric: bool = True
    type: str = "number"

    @property
    def ordered(self) -> int:
        """Cells of the values themselves; the two special ones follow."""
        return len(self.edges) + 1 if self.numeric else len(self.categories)

    @property
    def cells(self) -> int:
        return self.ordered + 2

    @property
    def missing(self) -> int:
        return self.ordered if self.numeric else self.ordered + 1

    def cell(self, value: float) -> int:
        """The cell of one number."""
        if math.isnan(value):
            return self.ordered
        if math.isinf(value):
            return self.ordered + 1
        return bisect_left(self.edges, value)

    def category(self, text: str | None) -> int:
        """The cell of one text; None is missing."""
        if text is None:
            return self.ordered + 1
        return self.categories.get(text, self.ordered)

    def count(self, values: Floats) -> NDArray[np.int64]:
        """Numbers per cell, shape (cells,)."""
        places = np.searchsorted(self.edges, values, side="left")
        nan, infinite = np.isnan(values), np.isinf(values)
        places[nan], places[infinite] = self.ordered, self.ordered + 1
        return np.bincount(places, minlength=self.cells)


@dataclass(frozen=True, slots=True)
class Reference:
    """What of the reference's document concerns counting."""

    grid: str = ""
    features: tuple[Grid, ...] = ()
    outputs: tuple[Grid, ...] = ()


def read_reference(text: bytes) -> Reference:
    """Reads ``reference.json``.

    Raises:
        ConfigurationError: it is not one of these documents.
    """
    try:
        raw = orjson.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the reference is not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ConfigurationError(
            f"the reference is not of format {FORMAT}: build it with this version's "
            "`mooring reference build`"
        )
    try:
        return Reference(str(raw["grid"]), _grids(raw["features"]), _grids(raw.get("outputs", ())))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"the reference cannot be read: {error!r}") from error


def _grids(raw: Sequence[Mapping[str, Any]]) -> tuple[Grid, ...]:
    return tuple(map(_grid, raw))


def _grid(raw: Mapping[str, Any]) -> Grid:
    name, kind = str(raw["name"]), raw["kind"]
    type_ = str(raw.get("type", "number"))
    if kind == "categorical":
        texts = [str(text) for text in raw["categories"]]
        return Grid(name, (), {text: i for i, text in enumerate(texts)}, False, type_)
    edges = tuple(float(edge) for edge in raw["edges"])
    if kind != "numeric" or len(edges) < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(f"feature {name}: edges must rise, and be at least 2")
    return Grid(name, edges, {}, True, type_)
