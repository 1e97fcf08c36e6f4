"""The smallest shift that alarms, in the feature's own terms.

"PSI .02" means nothing to the owner of a feature; "a change of the share of 1 by .07 or more" does.
"""

from __future__ import annotations

from math import log

import numpy as np

from mooring.core.drift.arrays import FloatArray

#: A bin that holds as much is what the sentence is about, whatever the rest looks like.
_DOMINANT = 0.4
#: Of a feature that has no shift to alarm from.
CONSTANT = "constant in the reference: only values other than that are noticed"


def floor_said(floor: str) -> str:
    """What is said of a feature with which nothing is wrong; empty where no floor is known."""
    return floor if floor in ("", CONSTANT) else f"alarms from {floor}"


def share_floor(share: float, min_effect_psi: float) -> float:
    """The smallest change of one share, up or down, whose PSI is ``min_effect_psi``.

    All other bins keep their proportions, so that their part of PSI is that of one bin.
    """

    def size(moved: float) -> float:
        p, q = share, share + moved
        return (q - p) * (log(q / p) - log((1 - q) / (1 - p)))

    ways = []
    for room, sign in ((1 - share, 1.0), (share, -1.0)):
        low, high = 0.0, room * (1 - 1e-12)
        if size(sign * high) < min_effect_psi:
            continue
        for _ in range(60):
            middle = (low + high) / 2
            small = size(sign * middle) < min_effect_psi
            low, high = (middle, high) if small else (low, middle)
        ways.append(high)
    return min(ways, default=1.0)


def floor_text(
    labels: tuple[str, ...], counts: FloatArray, centres: FloatArray, min_effect_psi: float
) -> str:
    """One sentence on one feature: its tested bins' labels, counts and centres (NaN: no order)."""
    total = float(counts.sum())
    if len(labels) < 2 or total <= 0:
        return CONSTANT
    shares = np.clip(counts / total, 1e-9, 1 - 1e-9)
    ordered = np.isfinite(centres)
    if len(labels) == 2 or not ordered.all() or shares.max() >= _DOMINANT:
        # Of two bins the second is named: the 1 of 0 and 1.
        about = 1 if len(labels) == 2 else int(shares.argmax())
        moved = share_floor(float(shares[about]), min_effect_psi)
        return f"a change of the share of {labels[about]} by {_number(moved)} or more"
    mean = float(shares @ centres)
    spread = float(np.sqrt(shares @ (centres - mean) ** 2))
    deviations = float(np.sqrt(min_effect_psi))
    return (
        f"a shift of the mean by about {deviations * spread:.3g} "
        f"({_number(deviations)} standard deviations) or more"
    )


def _number(value: float) -> str:
    """Two digits without the leading zero, as the tables of statistics have it."""
    digits = 2 if value >= 0.01 else 4
    return f"{value:.{digits}f}".removeprefix("0")
