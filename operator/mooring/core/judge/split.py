"""Whether the traffic is split as the weights say, by a multinomial e-process over attempts.

A split that is wrong makes no verdict: it blocks Pass, since something other than the candidate is
being measured. It never makes or prevents Fail, or a candidate that hangs would be protected.

Source: Lindon & Malek, Anytime-valid inference for multinomial count data (arXiv 2011.03567).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import gammaln

from mooring.core.judge.evidence import Array

#: Weight of the prior: a_j = 100·θ0_j.
CONCENTRATION: Final = 100.0
#: A share may be off by this part of the smaller of the two.
TOLERANCE: Final = 0.2
#: Attempts over one connection are not independent: each counts as half of one.
TEMPER: Final = 0.5
#: The chance of holding back a candidate whose split is right.
ALPHA: Final = 0.01


def log_bayes_factor(counts: Array, shares: Array, null: Array) -> Array:
    """log BF = log[ Γ(Σa)/ΠΓ(a_j) · ΠΓ(a_j+S_j)/Γ(Σa+ΣS) / Π null_j^{S_j} ], a = 100·shares.

    Shapes (n, j). With ``null`` equal to ``shares`` it is the published test: its anytime p-value
    min(1, 1/BF) for counts (156, 212) against ½/½ is 0.0749.
    """
    a = CONCENTRATION * shares
    prior = gammaln(np.sum(a, axis=-1)) - np.sum(gammaln(a), axis=-1)
    posterior = np.sum(gammaln(a + counts), axis=-1) - gammaln(np.sum(a + counts, axis=-1))
    return np.asarray(prior + posterior - np.sum(counts * np.log(null), axis=-1))


def log_wrong_split(candidate: Array, stable: Array, weight: Array) -> Array:
    """log E against |θ−θ0| ≤ 0.2·θ0 for both sides' shares θ; 0 where there is nothing to split.

    ``candidate`` and ``stable`` are attempts since the weights were set, ``weight`` the candidate's
    share between 0 and 1; shapes (n,). The null is the interval, so its best point is compared:
    that makes E smaller than against the true one, and so keeps it an e-process. Tempering does
    too, by Jensen's inequality.
    """
    split = (weight > 0) & (weight < 1)
    w = np.where(split, weight, 0.5)
    total = candidate + stable
    slack = TOLERANCE * np.minimum(w, 1 - w)
    observed = np.where(total > 0, candidate / np.maximum(total, 1.0), w)
    best = np.clip(observed, w - slack, w + slack)
    counts = TEMPER * np.stack([candidate, stable], axis=-1)
    value = log_bayes_factor(
        counts, np.stack([w, 1 - w], axis=-1), np.stack([best, 1 - best], axis=-1)
    )
    return np.asarray(np.where(split, value, 0.0))
