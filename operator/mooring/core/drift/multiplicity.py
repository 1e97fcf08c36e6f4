"""Many features in one window: which of them to believe.

20 independent features tested at .05 alarm somewhere in 64 % of all windows without drift. The
adjusted values (q) control the share of false ones among those shown (Benjamini & Hochberg 1995;
Benjamini & Yekutieli 2001 under any dependence) or the chance of any at all (Bonferroni). They
rank features within a window; alarms over many windows are the matter of ``cusum``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mooring.core.drift.arrays import FloatArray

Correction = Literal["BH", "BY", "Bonferroni", "None"]


def adjusted(p: FloatArray, correction: Correction = "BH") -> FloatArray:
    """q-values of the p-values of one window, shape (F,); NaN (not tested) stays NaN.

    Raises ValueError for a correction that does not exist.
    """
    found = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    values = p[tested]
    count = values.size
    if not count:
        return found
    if correction == "None":
        found[tested] = values
    elif correction == "Bonferroni":
        found[tested] = np.minimum(1.0, values * count)
    elif correction in {"BH", "BY"}:
        penalty = float((1 / np.arange(1, count + 1)).sum()) if correction == "BY" else 1.0
        order = np.argsort(values, kind="stable")
        scaled = values[order] * count * penalty / np.arange(1, count + 1)
        monotone = np.minimum.accumulate(scaled[::-1])[::-1]
        back = np.empty(count)
        back[order] = np.minimum(1.0, monotone)
        found[tested] = back
    else:
        raise ValueError(f"correction {correction!r} is none of BH, BY, Bonferroni, None")
    return found
