"""Silent failures in what a model answers, without any label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr, ndtr

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.health import is_constant

#: A trend of entropy is reported when it is so steep (standard errors) and the loss so large.
_STEEP = 3.0
_LOST = 0.2


@dataclass(frozen=True, slots=True)
class Estimated:
    """Performance that was estimated and not measured: the name says so wherever it is shown.

    Attributes:
        accuracy: expected accuracy of the window's predictions.
        reference: the same for the reference.
        standard_error: of the difference, from both sides' counts.
        p: of "it has not fallen"; normal approximation.
    """

    accuracy: float
    reference: float
    standard_error: float
    p: float


def estimated_accuracy(
    current: FloatArray, reference: FloatArray, positives: FloatArray, labelled: FloatArray
) -> Estimated:
    """Confidence-based performance estimation on calibrated score bins: Σ w_b·max(s_b, 1−s_b).

    ``current`` and ``reference`` are predictions per score bin, s_b = ``positives``/``labelled`` is
    what a score in bin b has meant in the reference. Blind to concept drift: it believes that a
    score still means what it meant. A bin without labels counts with s_b = ½. Raises ValueError
    when a side is empty.
    """
    if current.sum() <= 0 or reference.sum() <= 0:
        raise ValueError("there are no predictions to estimate from")
    share = np.where(labelled > 0, positives / np.maximum(labelled, 1), 0.5)
    right = np.maximum(share, 1 - share)
    weights, usual = current / current.sum(), reference / reference.sum()
    now, before = float(weights @ right), float(usual @ right)
    spread = float(weights @ right**2) - now**2
    spread_before = float(usual @ right**2) - before**2
    # The calibration itself is estimated, but enters both sides with the opposite sign.
    doubt = (weights - usual) ** 2 * share * (1 - share) / np.maximum(labelled, 1)
    error = float(
        np.sqrt(spread / current.sum() + spread_before / reference.sum() + doubt.sum() + 1e-18)
    )
    return Estimated(now, before, error, float(ndtr((now - before) / error)))


def constant_output(current: FloatArray, reference: FloatArray) -> bool:
    """Whether a window's outputs are all in one bin, where the reference makes that incredible."""
    return is_constant(current, reference)


def entropy(counts: FloatArray) -> FloatArray:
    """Entropy in nats of histograms (…, bins), with the Miller–Madow term for their finite size."""
    total = np.maximum(counts.sum(axis=-1, keepdims=True), 1e-300)
    filled = (counts > 0).sum(axis=-1)
    plain = entr(counts / total).sum(axis=-1)
    return np.asarray(plain + np.maximum(filled - 1, 0) / (2 * total[..., 0]), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Collapse:
    """How much of the outputs' variety is left, and whether it keeps going.

    Attributes:
        left: last entropy over the reference's, 1 when nothing was lost.
        slope: change of that ratio per window.
        collapsing: falling steadily and at least a fifth lost.
    """

    left: float
    slope: float
    collapsing: bool


def variance_collapse(windows: Sequence[FloatArray], reference: FloatArray) -> Collapse:
    """The trend of output entropy over the last windows against the reference's.

    A model that learns from its own answers narrows step by step; no single step is a drift.
    Raises ValueError without a window. A trend needs at least four of them.
    """
    if not windows:
        raise ValueError("there is no window to look at")
    usual = float(entropy(reference))
    if usual <= 0:
        return Collapse(1.0, 0.0, collapsing=False)
    return collapse(entropy(np.stack(list(windows))) / usual)


def collapse(found: FloatArray) -> Collapse:
    """The same from the ratios of entropy, shape (windows,), at least one."""
    if found.size < 4:
        return Collapse(float(found[-1]), 0.0, collapsing=False)
    at = np.arange(found.size) - (found.size - 1) / 2
    slope = float(at @ found / (at @ at))
    residual = found - found.mean() - slope * at
    error = float(np.sqrt(residual @ residual / (found.size - 2) / (at @ at)))
    falling = slope < -_STEEP * error and float(found[-1]) < 1 - _LOST
    return Collapse(float(found[-1]), slope, collapsing=falling)
