"""Errors of predictions that are numbers: sums of their powers, and how they are spread.

The sums are kept per cell of the prediction, as labels are: whoever reads them can weigh each cell
as the traffic does. With the fourth power the variance of e² is known, and so how certain an RMSE
is. The bins of |e| come from the reference: the size of its values times 2⁻¹³ … 2.

An error counts as twice that size at most: a model that errs by more is as bad as can be. So one
mistyped label neither ends all later figures (a sum that has become infinite stays so, and a large
one swallows small ones), nor makes a day's mean too uncertain to say anything; and what is above a
bound is so with the true errors, too.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mooring_collector.grid import Floats, Grid

_LEAST_POWER: Final = -13
_GREATEST_POWER: Final = 1
_SMALLEST: Final = 1e-29
"""A reference that holds nothing but zeros says nothing of a size, and spans less than this."""
_LARGEST: Final = 1e70
"""Below this the fourth power of an error, and the sum of many, are numbers."""


def error_edges(grid: Grid) -> tuple[float, ...]:
    """Rising upper bounds of the bins of |e|, all but the last bin, in the output's own unit.

    The size is the range of the reference's values or the largest of them, whichever is more.
    """
    low, high = grid.edges[0], grid.edges[-1]
    size = min(max(high - low, abs(low), abs(high)), _LARGEST)
    if size < _SMALLEST:
        size = 1.0
    return tuple(math.ldexp(size, power) for power in range(_LEAST_POWER, _GREATEST_POWER + 1))


class ErrorSums:
    """The errors of one output of one revision, in memory that does not grow.

    Attributes:
        edges: upper bounds of the bins of |e|; the last is also the largest |e| that is summed.
        bins: labels per bin, shape (edges + 1,).
        rows, absolute, squared, quartic: labels, Σ|e|, Σe² and Σe⁴ per cell of the prediction.
    """

    __slots__ = ("absolute", "bins", "edges", "quartic", "rows", "squared")

    def __init__(self, grid: Grid) -> None:
        self.edges = error_edges(grid)
        self.bins = [0] * (len(self.edges) + 1)
        self.rows: NDArray[np.int64] = np.zeros(grid.cells, dtype=np.int64)
        self.absolute: Floats = np.zeros(grid.cells)
        self.squared: Floats = np.zeros(grid.cells)
        self.quartic: Floats = np.zeros(grid.cells)

    def add(self, cell: int, error: float) -> None:
        """Counts one label: prediction − label, which may be infinite where both are huge."""
        size = abs(error)
        self.bins[bisect_left(self.edges, size)] += 1
        size = min(size, self.edges[-1])
        self.rows[cell] += 1
        self.absolute[cell] += size
        self.squared[cell] += size**2
        self.quartic[cell] += size**4
