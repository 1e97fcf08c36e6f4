"""Over-dispersion: rows that arrive in clusters carry less than their number says.

Autocorrelated traffic makes every test that counts rows as independent alarm far too often: .90 in
place of .05. The reference, cut into W sub-windows in the order of time, shows by how much its
own windows differ (Rao & Scott's design effect):

    δ̂ = max(1, Σ_w χ²_w / ((W−1)(k−1)))
"""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri

from mooring.core.drift.arrays import BoolArray, FloatArray


def dispersion(windows: FloatArray, mask: BoolArray | None = None) -> FloatArray:
    """δ̂ per feature, shape (F,), from counts per sub-window, shape (W, F, K); at least 1.

    χ²_w compares a sub-window with what the pooled sub-windows make expect of it; empty ones add
    nothing. With fewer than two sub-windows nothing can be learnt and δ̂ is 1.
    """
    if mask is not None:
        windows = windows * mask
    size = windows.sum(axis=2)
    pooled = windows.sum(axis=0)
    total = np.maximum(pooled.sum(axis=1), 1e-300)
    expected = size[:, :, None] * (pooled / total[:, None])[None]
    known = expected > 0
    square = np.where(known, (windows - expected) ** 2 / np.where(known, expected, 1.0), 0.0)
    filled = (size > 0).sum(axis=0)
    bins = (pooled > 0).sum(axis=1)
    df = np.maximum((filled - 1) * (bins - 1), 1)
    return np.asarray(np.maximum(1.0, square.sum(axis=(0, 2)) / df), dtype=np.float64)


def learnt(windows: FloatArray, mask: BoolArray) -> FloatArray:
    """δ̂ where it is more than chance, else 1; shape (F,), from (W, F, K).

    Of independent rows δ̂ is 1 on average and above it half of the time; below its 99 % point it
    is taken as 1, so that quiet traffic pays nothing for the estimate.
    """
    found = dispersion(windows, mask)
    df = np.maximum((windows.shape[0] - 1) * np.maximum(mask.sum(axis=1) - 1, 1), 1)
    return np.where(found > chdtri(df, 0.01) / df, found, 1.0)
