"""The bins that are tested, formed from the fine cells of a reference.

Heavy cells (atoms above all) stay bins of their own; the rest is divided into contiguous bins of
about equal share. A cell that the reference hardly knows adds a degree of freedom and no power,
so it is left to the exact tests of ``tails``: rare categories, unseen, missing and non-finite
values unless the reference has them in earnest. Values out of range count into the outermost bin
as well, so that a shift of the mean moves them with everything else.

All features are laid out in arrays of features × bins, the ragged ends masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import numpy as np

from mooring.core.drift.arrays import BoolArray, FloatArray, IntArray
from mooring.core.drift.grid import FeatureGrid

#: A share of the reference below which a bin is not worth a degree of freedom.
LEAST_SHARE = 0.005


class Tail(Enum):
    """The rare cells that are judged one by one, in the order of ``Layout.tails``."""

    LOW = "lowTail"
    HIGH = "highTail"
    BELOW = "belowRange"
    ABOVE = "aboveRange"
    MISSING = "missing"
    UNSEEN = "unseen"
    NON_FINITE = "nonFinite"
    RARE = "rareCategories"


TAILS = tuple(Tail)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the fine counts of F features become tested bins. K is the largest number of bins.

    Attributes:
        names: the features, in the order of every first axis.
        cells: the number of fine cells of each, shape (F,).
        assign: the tested bin of each fine cell, -1 for none, shape (F, max cells).
        mask: which of the K bins a feature has, shape (F, K).
        tails: which kinds of tail a feature has, shape (F, tails).
        bin_cells: the fine cells that are tested: their place in the flattened fine counts, and
            their bin's in the flattened array of features × bins, shape (2, many).
        tail_cells: the fine cells that belong to tails: their place in the flattened fine counts,
            and their tail's in the flattened array of features × tails, shape (2, many).
        centres: a typical value per bin, NaN where there is no order, shape (F, K).
        labels: a text per bin.
    """

    names: tuple[str, ...]
    cells: IntArray
    assign: IntArray
    mask: BoolArray
    tails: BoolArray
    bin_cells: IntArray
    tail_cells: IntArray
    centres: FloatArray
    labels: tuple[tuple[str, ...], ...]

    @property
    def bins(self) -> IntArray:
        """How many bins each feature is tested on, shape (F,)."""
        return np.asarray(self.mask.sum(axis=1), dtype=np.int64)

    def pad(self, counts: Sequence[Sequence[float] | FloatArray]) -> FloatArray:
        """Fine counts of all features, in order, as one array (F, max cells).

        Raises ValueError naming the feature whose number of cells is another.
        """
        padded = np.zeros(self.assign.shape)
        for row, (name, one) in enumerate(zip(self.names, counts, strict=True)):
            if len(one) != self.cells[row]:
                raise ValueError(
                    f"feature {name}: {len(one)} counts for a grid of {self.cells[row]} cells"
                )
            padded[row, : len(one)] = one
        return padded

    def coarsen(self, fine: FloatArray) -> FloatArray:
        """Counts per tested bin, (…, F, K), from fine counts (…, F, max cells)."""
        features, bins = self.mask.shape
        cells, places = self.bin_cells
        lead = fine.shape[:-2]
        rows = fine.reshape(-1, self.assign.size)
        size = features * bins
        found = [np.bincount(places, weights=row[cells], minlength=size) for row in rows]
        return np.array(found, dtype=np.float64).reshape((*lead, features, bins))

    def tail_counts(self, fine: FloatArray) -> FloatArray:
        """Counts per kind of tail, shape (F, tails)."""
        cells, places = self.tail_cells
        found = np.bincount(places, weights=fine.ravel()[cells], minlength=self.tails.size)
        return found.astype(np.float64).reshape(self.tails.shape)


def layout(
    grids: Sequence[FeatureGrid], counts: Sequence[Sequence[float] | FloatArray], *, bins: int = 10
) -> Layout:
    """The tested bins of all features, about ``bins`` of each, from the reference's counts."""
    most = max((grid.cells for grid in grids), default=0)
    assigned = [
        _assign(grid, np.asarray(one, dtype=np.float64), bins)
        for grid, one in zip(grids, counts, strict=True)
    ]
    widest = max((int(one.max(initial=-1)) + 1 for one in assigned), default=0)
    assign = np.full((len(grids), most), -1, dtype=np.int64)
    mask = np.zeros((len(grids), widest), dtype=np.bool_)
    tails = np.zeros((len(grids), len(TAILS), most), dtype=np.bool_)
    centres = np.full((len(grids), widest), np.nan)
    labels = []
    for row, (grid, one) in enumerate(zip(grids, assigned, strict=True)):
        assign[row, : grid.cells] = one
        mask[row, : int(one.max(initial=-1)) + 1] = True
        _mark_tails(grid, one, np.asarray(counts[row], dtype=np.float64), tails[row])
        if grid.kind == "numeric":
            weights = np.asarray(counts[row], dtype=np.float64)[: grid.ordered] + 1e-9
            places, ordered = grid.centres(), one[: grid.ordered]
            total = np.bincount(ordered[ordered >= 0], weights=weights[ordered >= 0])
            moved = np.bincount(ordered[ordered >= 0], weights=(weights * places)[ordered >= 0])
            centres[row, : total.size] = moved / total
        labels.append(_labels(grid, one))
    rows, kinds, cells = np.nonzero(tails)
    owners, tested = np.nonzero(assign >= 0)
    return Layout(
        names=tuple(grid.name for grid in grids),
        cells=np.array([grid.cells for grid in grids], dtype=np.int64),
        assign=assign,
        mask=mask,
        tails=np.asarray(tails.any(axis=2), dtype=np.bool_),
        bin_cells=np.stack((owners * most + tested, owners * widest + assign[owners, tested])),
        tail_cells=np.stack((rows * most + cells, rows * len(TAILS) + kinds)),
        centres=centres,
        labels=tuple(labels),
    )


def _assign(grid: FeatureGrid, counts: FloatArray, bins: int) -> IntArray:
    """The tested bin of every fine cell of one feature."""
    found = np.full(grid.cells, -1, dtype=np.int64)
    total = float(counts.sum())
    if total <= 0:
        return found
    shares = counts / total
    if grid.kind == "numeric":
        found[: grid.ordered] = _divide(shares[: grid.ordered], bins)
    else:
        _by_rank(shares, grid.ordered, bins, found)
    for cell in (grid.unseen, grid.missing, grid.non_finite):
        if cell is not None and shares[cell] >= LEAST_SHARE:
            found[cell] = int(found.max()) + 1
    return found


def _divide(shares: FloatArray, bins: int) -> IntArray:
    """Contiguous bins over ordered cells: heavy cells alone, the runs between in equal parts."""
    heavy = shares >= 1 / bins
    # Runs of cells: every heavy cell is one, and so is all that lies between two of them.
    breaks = np.flatnonzero(heavy[1:] | heavy[:-1]) + 1
    starts = np.concatenate(([0], breaks, [shares.size])).astype(np.int64)
    found = np.zeros(shares.size, dtype=np.int64)
    following = 0
    for start, stop in pairwise(starts.tolist()):
        run = shares[start:stop]
        mass = float(run.sum())
        if mass < LEAST_SHARE:
            # Too little for a bin: it joins the bin before it, or at the start the first.
            found[start:stop] = max(following - 1, 0)
            continue
        parts = max(1, round(mass * bins)) if not heavy[start] else 1
        middle = (np.cumsum(run) - run / 2) / mass
        _, places = np.unique(np.floor(parts * middle * (1 - 1e-12)), return_inverse=True)
        found[start:stop] = following + places
        following = int(found[start:stop].max()) + 1
    return found


def _by_rank(shares: FloatArray, listed: int, bins: int, found: IntArray) -> None:
    """Categories in earnest have bins of their own, at most three times ``bins``; others share."""
    order = np.argsort(-shares[:listed], kind="stable")
    own = [int(cell) for cell in order if shares[cell] >= LEAST_SHARE][: 3 * bins - 1]
    for place, cell in enumerate(sorted(own)):
        found[cell] = place
    rest = [cell for cell in range(listed) if found[cell] < 0]
    if sum(float(shares[cell]) for cell in rest) >= LEAST_SHARE:
        found[rest] = len(own)


def _mark_tails(grid: FeatureGrid, assign: IntArray, counts: FloatArray, tails: BoolArray) -> None:
    places = {tail: place for place, tail in enumerate(TAILS)}
    if grid.kind == "numeric":
        if grid.low_tail:
            tails[places[Tail.LOW], :2] = True
        if grid.high_tail:
            tails[places[Tail.HIGH], grid.ordered - 2 : grid.ordered] = True
        tails[places[Tail.BELOW], 0] = True
        tails[places[Tail.ABOVE], grid.ordered - 1] = True
        tails[places[Tail.NON_FINITE], grid.ordered + 1] = True
    else:
        rare = np.flatnonzero(assign[: grid.ordered] < 0)
        tails[places[Tail.RARE], rare] = True
        # An open feature's "unseen" is a bin like others where the reference has it.
        tails[places[Tail.UNSEEN], grid.ordered] = not (grid.open and counts[grid.ordered] > 0)
    tails[places[Tail.MISSING], grid.missing] = True


#: Below, a value, between, a value, above: of 0 and 1, a bin is named by the one that it holds.
_CELLS_OF_TWO_VALUES = 5


def _labels(grid: FeatureGrid, assign: IntArray) -> tuple[str, ...]:
    cells: list[list[int]] = [[] for _ in range(int(assign.max(initial=-1)) + 1)]
    for cell, place in enumerate(assign.tolist()):
        if place >= 0:
            cells[place].append(cell)
    names = grid.labels()
    atoms = dict(zip(grid.atom_cells(), grid.atoms, strict=True))
    return tuple(
        names[own[0]]
        if len(own) == 1
        else "other"
        if grid.kind == "categorical"
        else _span(grid, own[0], own[-1], atoms)
        for own in cells
    )


def _span(grid: FeatureGrid, first: int, last: int, atoms: dict[int, float]) -> str:
    """The text of a bin of several ordered cells."""
    end = grid.ordered - 1
    inner = (max(first, 1), min(last, end - 1))
    if inner[0] == inner[1] and inner[0] in atoms:
        return f"{atoms[inner[0]]:.6g}"
    held = [atoms[cell] for cell in range(first, last + 1) if cell in atoms]
    if len(held) == 1 and grid.ordered <= _CELLS_OF_TWO_VALUES:
        return f"{held[0]:.6g}"
    if first == 0:
        return "any" if last >= end else f"<= {grid.edges[last]:.6g}"
    if last >= end:
        return f"> {grid.edges[first - 1]:.6g}"
    return f"({grid.edges[first - 1]:.6g}, {grid.edges[last]:.6g}]"
