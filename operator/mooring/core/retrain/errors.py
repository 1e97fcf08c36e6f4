"""Errors of regressions, from sums of powers of |prediction − label| per cell of the prediction.

MAE and RMSE (its square) are means of something that is never negative and often has a long tail.
Three things keep their bounds honest:

- Each cell weighs as the traffic does, not as its labels do (post-stratification), and its variance
  is drawn towards that of all (by two rows), so that a cell of one label is not thought certain.
- The mean is held to be worth no more rows than Kish's effective number of the weights, whatever
  the cells explain, and is judged by Student's t for so many.
- The lower bound is that of the same rows and three more without any error. A long right tail makes
  the lower bound of a studentised mean cautious by itself; what would make it rash is rows that
  happen to be all alike, and n of those say no more than that fewer than about 9/n differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import stdtrit

from mooring.core.drift.arrays import FloatArray

#: 99.9 % on both sides.
_QUANTILE: Final = 0.9995
_DRAWN: Final = 2.0
_WITHOUT_ERROR: Final = 3.0


@dataclass(frozen=True, slots=True)
class Errors:
    """Counters of one output per cell of its prediction, all of shape (cells,).

    Attributes:
        predicted: predictions in the traffic, with or without a label.
        labelled: those with a label that is a number.
        absolute, squared, quartic: sums of |e|, e² and e⁴ of these.
    """

    predicted: FloatArray
    labelled: FloatArray
    absolute: FloatArray
    squared: FloatArray
    quartic: FloatArray


@dataclass(frozen=True, slots=True)
class Bounded:
    """A figure, and the bounds between which it lies with certainty."""

    value: float
    lower: float
    upper: float


def mean_absolute(errors: Errors) -> Bounded | None:
    """MAE; None without labels."""
    return _mean(errors.predicted, errors.labelled, errors.absolute, errors.squared)


def root_mean_squared(errors: Errors) -> Bounded | None:
    """RMSE; None without labels."""
    found = _mean(errors.predicted, errors.labelled, errors.squared, errors.quartic)
    if found is None:
        return None
    return Bounded(*(float(np.sqrt(one)) for one in (found.value, found.lower, found.upper)))


def _mean(
    predicted: FloatArray, labelled: FloatArray, sums: FloatArray, squares: FloatArray
) -> Bounded | None:
    """The traffic's mean of a value ≥ 0 from Σx and Σx² per cell, with its bounds."""
    known = labelled > 0
    if not known.any():
        return None
    rows, sums, squares = labelled[known], sums[known], squares[known]
    weights = np.maximum(predicted[known], rows)
    weights = weights / weights.sum()
    means = sums / rows
    mean = float(weights @ means)
    # Differences of counters: rounding may leave a little less than nothing.
    within = np.maximum(squares - rows * means**2, 0.0)
    total = float(weights @ (within / rows + (means - mean) ** 2))
    variance = (within + _DRAWN * total) / (rows - 1 + _DRAWN)
    spread = float((weights**2 * variance / rows).sum())
    kish = 1 / float((weights**2 / rows).sum())
    worth = min(kish, total / spread) if spread > 0 else kish
    error = float(np.sqrt(total / worth))
    return Bounded(mean, _least(mean, total, worth), mean + _certain(worth) * error)


def _least(mean: float, variance: float, rows: float) -> float:
    """The lower bound of a mean of ``rows`` values ≥ 0, three more of them being 0."""
    more = rows + _WITHOUT_ERROR
    smaller = mean * rows / more
    wider = (variance + mean**2) * rows / more - smaller**2
    return max(smaller - _certain(more) * float(np.sqrt(max(wider, 0.0) / more)), 0.0)


def _certain(rows: float) -> float:
    return float(stdtrit(max(rows - 1, 1.0), _QUANTILE))
