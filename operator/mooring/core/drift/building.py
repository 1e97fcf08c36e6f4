"""A feature's grid from the values that the model was trained on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.grid import FeatureGrid, InvalidGrid, slack

#: Quantile cells of the fine grid: with the two tails and the two ends 64, and a multiple of every
#: usual number of tested bins (10, 12, 15, 20, 30).
QUANTILES = 60
#: The share of the reference on either side that counts as its tail.
TAIL = 0.001
#: Categories listed by name; the rest of a feature with more of them is "other".
MOST_CATEGORIES = 64


def numeric_grid(name: str, values: FloatArray, *, quantiles: int = QUANTILES) -> FeatureGrid:
    """The grid of a numeric feature from its values (any order; NaN and infinities are left out).

    Cells are quantiles of the values, except that a value which holds more than one quantile is
    an atom with a cell of its own: quantiles alone collapse onto its edge and then see nothing of
    a change in its share. Raises InvalidGrid when there is no finite value.
    """
    finite = np.sort(values[np.isfinite(values)])
    if not finite.size:
        raise InvalidGrid(f"feature {name}: no finite value in the reference")
    distinct, counts = np.unique(finite, return_counts=True)
    atoms = distinct[counts > finite.size / quantiles]
    low, high = float(finite[0]), float(finite[-1])
    cuts = _quantile_cuts(finite, quantiles)
    atom_edges = _atom_edges(atoms, distinct)
    first, last = _short(low - slack(low)), _short(high + slack(high))
    edges = [edge for pair in atom_edges for edge in pair]
    edges += [
        cut
        for cut in cuts
        if low < cut < high and not any(lower <= cut <= upper for lower, upper in atom_edges)
    ]
    rising = sorted({first, last, *(edge for edge in map(_short, edges) if first < edge < last)})
    return FeatureGrid(
        name=name,
        kind="numeric",
        edges=tuple(rising),
        atoms=tuple(float(atom) for atom in atoms),
        low_tail=_is_tail(finite, rising[0], rising[1]),
        high_tail=_is_tail(finite, rising[-2], rising[-1]),
    )


def _quantile_cuts(finite: FloatArray, quantiles: int) -> list[float]:
    """Cuts at the quantiles and at both tails, with no more digits than their spacing needs."""
    inner = np.arange(1, quantiles) / quantiles
    shares = np.concatenate(([TAIL], inner, [1 - TAIL]))
    cuts = np.unique(np.quantile(finite, shares, method="inverted_cdf"))
    gaps = np.diff(np.concatenate(([finite[0]], cuts, [finite[-1]])))
    nearest = np.minimum(gaps[:-1], gaps[1:])
    found = []
    for cut, gap in zip(cuts, nearest, strict=True):
        digits = 2 - math.floor(math.log10(gap)) if gap > 0 else 17
        # A value is never moved below itself: cells contain their upper bound.
        rounded = round(float(cut), min(digits, 300))
        found.append(rounded if rounded >= cut else min(rounded + 10.0**-digits, float(cut) + gap))
    return found


def _atom_edges(atoms: FloatArray, distinct: FloatArray) -> list[tuple[float, float]]:
    """The bounds of every atom's cell: its slack, but never over a neighbour's half of the way."""
    found = []
    for atom in map(float, atoms):
        at = int(np.searchsorted(distinct, atom))
        below = float(distinct[at - 1]) if at else -math.inf
        above = float(distinct[at + 1]) if at + 1 < distinct.size else math.inf
        lower = max(atom - slack(atom), atom - (atom - below) / 2)
        upper = min(atom + slack(atom), atom + (above - atom) / 2)
        found.append((lower, upper))
    return found


def _short(edge: float) -> float:
    """The edge without the digits that arithmetic left behind (13 significant ones stay)."""
    return float(f"{edge:.13g}")


def _is_tail(finite: FloatArray, lower: float, upper: float) -> bool:
    """Whether a cell holds something, and about as little as a tail does."""
    held = np.searchsorted(finite, upper, side="right") - np.searchsorted(
        finite, lower, side="right"
    )
    return bool(0 < held <= max(2 * TAIL * finite.size, 1) and finite.size * TAIL >= 1)


def categorical_grid(
    name: str,
    values: Iterable[str | None],
    *,
    declared: Sequence[str] | None = None,
    most: int = MOST_CATEGORIES,
) -> FeatureGrid:
    """The grid of a categorical feature.

    With a declared domain the categories are those, in that order, and all others are unseen.
    Without, they are the ones that the reference holds, the most frequent first; when there are
    more than ``most``, the others share the unseen cell and the grid is marked as open.
    """
    if declared is not None:
        return FeatureGrid(name=name, kind="categorical", categories=tuple(declared))
    counted = Counter(value for value in values if value is not None)
    ranked = sorted(counted, key=lambda value: (-counted[value], value))
    return FeatureGrid(
        name=name, kind="categorical", categories=tuple(ranked[:most]), open=len(ranked) > most
    )
