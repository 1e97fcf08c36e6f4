"""Maximum mean discrepancy: a shift of all features together, on a bounded reservoir of rows.

Histograms see one feature at a time; a correlation that breaks moves none of them. The reservoir
(a few hundred rows) is compared as a whole (Gretton et al. 2012), Gaussian kernel, the width the
median distance between pooled rows, features scaled by their pooled standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mooring.core.drift.arrays import FloatArray

#: Rows of each side that are looked at: the kernel has the square of their sum.
MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Mmd:
    """The squared discrepancy (biased estimate, 0 or more) and its p-value."""

    squared: float
    p: float


def mmd(
    reference: FloatArray, current: FloatArray, *, permutations: int = 200, seed: int = 1
) -> Mmd:
    """MMD² between two samples of rows (rows × features) with a permutation p = (1+b)/(1+B).

    b of B random divisions of the pooled rows are at least as far apart as the true one. NaN
    becomes the feature's pooled mean. Raises ValueError when a side has fewer than two rows or
    the widths differ.
    """
    if reference.ndim != 2 or current.ndim != 2 or reference.shape[1] != current.shape[1]:
        raise ValueError("MMD compares two tables of the same features")
    if min(len(reference), len(current)) < 2:
        raise ValueError("MMD needs at least two rows of either side")
    generator = np.random.default_rng(seed)
    sides = [
        side if len(side) <= MOST_ROWS else side[generator.permutation(len(side))[:MOST_ROWS]]
        for side in (reference, current)
    ]
    rows = _standardised(np.concatenate(sides))
    first, count = len(sides[0]), len(rows)
    norms = (rows**2).sum(axis=1)
    distances = np.maximum(norms[:, None] + norms[None, :] - 2 * rows @ rows.T, 0.0)
    apart = distances[np.triu_indices(count, 1)]
    width = float(np.median(apart)) or 1.0
    kernel = np.exp(-distances / width)
    weights = np.where(np.arange(count) < first, 1 / first, -1 / (count - first))
    orders = [generator.permutation(count) for _ in range(permutations)]
    all_weights = np.stack((weights, *(weights[order] for order in orders)), axis=1)
    found = np.einsum("ij,ij->j", all_weights, kernel @ all_weights)
    exceeded = int((found[1:] >= found[0] - 1e-15).sum())
    return Mmd(max(0.0, float(found[0])), (1 + exceeded) / (1 + permutations))


def _standardised(rows: FloatArray) -> FloatArray:
    known = np.isfinite(rows)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, rows, 0.0)
    mean = filled.sum(axis=0) / count
    centred = np.where(known, rows - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0), dtype=np.float64)
